-- A backend of another pool than the default one is called POOL/NAME: the name of a pool has up to 63 bytes.

ALTER TABLE backends DROP CONSTRAINT backends_name_check;
ALTER TABLE backends ADD CONSTRAINT backends_name_check CHECK (octet_length(name) BETWEEN 1 AND 192);
