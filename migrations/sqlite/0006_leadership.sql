-- The term of the control plane. The lock beside the file is what keeps a second one out; the number is what it hands to others.
CREATE TABLE leadership (
    only_row  integer PRIMARY KEY CHECK (only_row = 1),
    term      integer NOT NULL,
    holder    text NOT NULL                 -- empty: nobody yet
) STRICT;
INSERT INTO leadership VALUES (1, 0, '');
