-- Who may what, and who did what. Of a token only its SHA-256 is kept; id is the start of it.

CREATE TABLE token (
    id                 TEXT   PRIMARY KEY,
    hash               TEXT   NOT NULL UNIQUE,
    name               TEXT   NOT NULL,
    role               TEXT   NOT NULL CHECK (role IN ('admin', 'planner', 'viewer', 'node', 'join')),
    node               TEXT, -- its name: a token may be there before its node is registered
    pool               TEXT, -- likewise
    uses_left          BIGINT CHECK (uses_left >= 0),
    node_token_seconds BIGINT CHECK (node_token_seconds >= 1), -- life of the tokens that a node gets by this one
    created_at         BIGINT NOT NULL,
    created_by         TEXT   NOT NULL,
    expires_at         BIGINT,
    last_used_at       BIGINT,
    CHECK ((role = 'node') = (node IS NOT NULL)),
    CHECK (role IN ('node', 'join') OR pool IS NULL),
    CHECK ((role = 'join') = (uses_left IS NOT NULL)),
    CHECK (role <> 'join' OR (pool IS NOT NULL AND expires_at IS NOT NULL)),
    CHECK (role IN ('node', 'join') OR node_token_seconds IS NULL)
);
CREATE INDEX token_by_node ON token (node, created_at) WHERE node IS NOT NULL;

-- Tokens that nodes had: whoever still shows one when its claim has ended is told so, and starts no more pods.
CREATE TABLE former_token (
    id       TEXT   PRIMARY KEY,
    hash     TEXT   NOT NULL UNIQUE,
    node     TEXT   NOT NULL,
    claim    BIGINT, -- that the node had when the token ended
    ended_at BIGINT NOT NULL
);
CREATE INDEX former_token_by_time ON former_token (ended_at);

-- Numbers are never given twice, so that a reader's cursor never meets another event.
CREATE TABLE event (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         BIGINT NOT NULL,
    actor      TEXT   NOT NULL,
    token      TEXT,
    source     TEXT   NOT NULL,
    request_id TEXT,
    action     TEXT   NOT NULL CHECK (action IN ('create', 'update', 'delete', 'free')),
    subject    TEXT   NOT NULL,
    was        TEXT, -- JSON
    became     TEXT, -- JSON
    CHECK (was IS NOT NULL OR became IS NOT NULL)
);
CREATE INDEX event_by_subject ON event (subject, id);
CREATE INDEX event_by_actor ON event (actor, id);
CREATE INDEX event_by_time ON event (at, id);
