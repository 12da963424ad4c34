SELECT count() FROM ${trial} WHERE proof = {proof:String} SETTINGS select_sequential_consistency = 1
