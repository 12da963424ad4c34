INSERT INTO ${trial} (run, proof) SELECT {run:String}, {proof:String}
