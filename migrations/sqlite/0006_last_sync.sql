-- What a node told when it last listed its whole journal: the ledger is compared with that, and after an older backup
-- was restored it shows which nodes have found back into it.
CREATE TABLE last_sync (
    node          BIGINT PRIMARY KEY REFERENCES node (id) ON DELETE CASCADE,
    at            BIGINT NOT NULL,
    claim         BIGINT NOT NULL,
    boot_seq      BIGINT NOT NULL,
    as_of         BIGINT NOT NULL, -- what the node did later is not in it
    block_version BIGINT NOT NULL, -- of the block that it worked with
    live          BIGINT NOT NULL CHECK (live >= 0),
    refused       BIGINT NOT NULL CHECK (refused >= 0 AND refused <= live) -- of these: on addresses not the node's
);
