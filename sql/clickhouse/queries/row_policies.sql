-- Row policies on a table that apply to this user, and may hide rows.
SELECT short_name, ifNull(select_filter, '')
FROM system.row_policies
WHERE database IN (currentDatabase(), '') AND table IN ({table:String}, '')
  AND ifNull(select_filter, '1') NOT IN ('1', 'true')
  AND (
      has(apply_to_list, currentUser())
      OR hasAny(apply_to_list, (SELECT groupArray(role_name) FROM system.enabled_roles))
      OR apply_to_all AND NOT has(apply_to_except, currentUser())
  )
