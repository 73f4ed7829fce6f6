-- What is reserved of a subnet is summed up without reading what is not.
CREATE INDEX extent_reserved ON extent (subnet, first, next) WHERE kind = 'reserved';
