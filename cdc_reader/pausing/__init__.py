"""`outhaul pause`: the operator's word, how it is kept and reaches the reader, and the gate that it shuts."""
