"""Bytes of the replication stream -> batches in Redis.

The files in the order in which an event passes them; those that are indented do one part of the stage above them:

    wire                when to read the socket, and when to answer Postgres
    batching            where a piece to decode ends, and where a batch ends
    decode              joins the next stages for one piece
        frame           frames -> pgoutput messages
        pgoutput_messages   messages -> Begin, Relation, Commit
        transactions    messages -> commit LSN and ordinal of every row
        columns         Insert messages -> Arrow columns
            cells           where each value is
            column_types    which type each column has in Arrow and ClickHouse
            binary_cells    values in binary form
            numeric         the same for numeric
            text_cells      values in text form
            pg_text_by_type values of the types that ClickHouse stores as text
            pg_text         a value as Postgres prints it, for dead letters
            arrow           NumPy arrays -> Arrow arrays
        logical_message messages that are events without a row -> the same columns
    assemble            decoded rows -> batches
        stored_positions    which rows ClickHouse has stored
        log_match           whether the log has all of these
    dispatch            batch -> payload and message in Redis
        type_fit            whether the ClickHouse table stores every value unchanged
"""
