-- How important a client's requests are where they wait for a place. Null: a limit leaves it to its plan, and a plan to the
-- default (1, normal).

ALTER TABLE limits ADD COLUMN weight INTEGER CHECK (weight BETWEEN 1 AND 1000);
ALTER TABLE limits ADD COLUMN priority TEXT CHECK (priority IN ('critical', 'normal', 'background'));
ALTER TABLE plans ADD COLUMN weight INTEGER CHECK (weight BETWEEN 1 AND 1000);
ALTER TABLE plans ADD COLUMN priority TEXT CHECK (priority IN ('critical', 'normal', 'background'));
