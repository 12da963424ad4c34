INSERT INTO ${epochs} (source, epoch, owner, system_identifier, timeline, slot, confirmed_lsn, in_memory)
SELECT
    {source:String}, {epoch:UInt64}, {owner:String}, {system_identifier:String}, {timeline:UInt32}, {slot:String},
    {confirmed_lsn:UInt64}, {in_memory:Bool}
