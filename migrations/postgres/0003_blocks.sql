-- A block that shrinks gives extents up, and its node may not know it yet: it keeps them until the node
-- confirms that nothing lives there. `leaving` is the first version of the block without the extent.
ALTER TABLE extent ADD COLUMN leaving BIGINT CHECK (leaving IS NULL OR (kind = 'block' AND leaving >= 2));
CREATE INDEX extent_leaving ON extent (block) WHERE leaving IS NOT NULL;
