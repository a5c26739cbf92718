-- How important a client's requests are where they wait for a place. Null: a limit leaves it to its plan, and a plan to the
-- default (1, normal).

ALTER TABLE limits
    ADD COLUMN weight   integer CHECK (weight BETWEEN 1 AND 1000),
    ADD COLUMN priority text COLLATE "C" CHECK (priority IN ('critical', 'normal', 'background'));
ALTER TABLE plans
    ADD COLUMN weight   integer CHECK (weight BETWEEN 1 AND 1000),
    ADD COLUMN priority text COLLATE "C" CHECK (priority IN ('critical', 'normal', 'background'));
