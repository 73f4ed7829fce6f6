-- VMs that a name has had and that have ended there, deleted or replaced. A late word of one must neither end its
-- successor nor make a claim that the next VM of the name takes for its own.
CREATE TABLE former_vm (
    node     TEXT COLLATE "C" NOT NULL, -- its name; a node of that name need not be there
    uid      TEXT COLLATE "C" NOT NULL,
    ended_at BIGINT          NOT NULL,
    PRIMARY KEY (node, uid)
);
CREATE INDEX former_vm_by_end ON former_vm (ended_at);

INSERT INTO former_vm (node, uid, ended_at)
    SELECT n.name, r.uid, n.claimed_at FROM replaced AS r JOIN node AS n ON n.id = r.node;
DROP TABLE replaced;
