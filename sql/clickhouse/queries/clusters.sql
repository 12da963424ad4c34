-- Clusters with at least as many servers as there are replicas: those with this server first, small ones first.
SELECT cluster
FROM system.clusters
GROUP BY cluster
HAVING count() >= {least:UInt64}
ORDER BY max(is_local) DESC, count(), cluster
