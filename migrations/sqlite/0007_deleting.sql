-- Few nodes are being deleted; they are counted without reading those that are not.
CREATE INDEX node_deleting ON node (pool) WHERE state = 'deleting';
