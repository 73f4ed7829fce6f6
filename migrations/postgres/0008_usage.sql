-- How many addresses are held, kept with every change of that: to count them takes the longer the more there are.
-- Only the sum over the slots of a pool in a subnet means anything; several may be written at the same time.
CREATE TABLE usage (
    subnet BIGINT NOT NULL REFERENCES subnet (id) ON DELETE CASCADE,
    pool   BIGINT NOT NULL REFERENCES pool (id) ON DELETE CASCADE,
    slot   BIGINT NOT NULL CHECK (slot >= 0),
    used   BIGINT NOT NULL,
    PRIMARY KEY (subnet, pool, slot)
) WITH (fillfactor = 50); -- a row is written again on its own page
INSERT INTO usage (subnet, pool, slot, used)
SELECT block.subnet, block.pool, 0, SUM(held.count)
FROM (SELECT block, COUNT(*) AS count FROM allocation WHERE block IS NOT NULL GROUP BY block) AS held
JOIN block ON block.id = held.block
GROUP BY block.subnet, block.pool;
