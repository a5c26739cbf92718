-- What instances sign with that tell each other of the shared budget. Nothing here is newer than PostgreSQL 15.

CREATE TABLE budget_key (
    -- One row.
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    key     bytea NOT NULL CHECK (octet_length(key) = 32)
);

-- For the role alone that makes the tables; another one that Balancer runs as needs GRANT SELECT.
REVOKE ALL ON budget_key FROM PUBLIC;

-- Four times 122 random bits, from the operating system.
INSERT INTO budget_key (key) SELECT sha256(string_agg(uuid_send(gen_random_uuid()), '')) FROM generate_series(1, 4);
