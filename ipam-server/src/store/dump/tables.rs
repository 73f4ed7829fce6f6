//! What is in a dump: every table of the schema, in an order in which each row finds the rows that it points to.

use crate::store::db::Sql;

/// A table of the schema, and how its rows leave and come back.
#[derive(Debug)]
pub(in crate::store) struct Table {
    pub(in crate::store) name: &'static str,
    pub(in crate::store) columns: &'static [&'static str],
    /// How many rows.
    pub(super) count: &'static str,
    /// Every row as a JSON list, in the order of the key.
    pub(super) rows: Sql,
    /// Takes a JSON list of objects.
    pub(super) insert: Sql,
    /// On PostgreSQL: makes the next id one that is not there yet.
    pub(super) go_on: Option<&'static str>,
}

macro_rules! value {
    (int $column:literal) => {
        concat!("CAST(value ->> '", $column, "' AS BIGINT)")
    };
    (text $column:literal) => {
        concat!("value ->> '", $column, "'")
    };
}

macro_rules! go_on {
    (plain $table:literal) => {
        None
    };
    (serial $table:literal) => {
        Some(concat!(
            "SELECT setval(pg_get_serial_sequence('",
            $table,
            "', 'id'), COALESCE(MAX(id), 1), MAX(id) IS NOT NULL) FROM ",
            $table
        ))
    };
}

macro_rules! insert {
    ($list:literal, $table:literal: $first:literal $kind:ident $(, $column:literal $kinds:ident)*) => {
        concat!(
            "INSERT INTO ", $table, " (", $first $(, ", ", $column)*, ") SELECT ",
            value!($kind $first) $(, ", ", value!($kinds $column))*, " FROM ", $list
        )
    };
}

macro_rules! table {
    ($id:ident $table:literal, $key:literal: $first:literal $kind:ident $(, $column:literal $kinds:ident)*) => {
        Table {
            name: $table,
            columns: &[$first $(, $column)*],
            count: concat!("SELECT COUNT(*) FROM ", $table),
            rows: Sql {
                sqlite: concat!(
                    "SELECT json_array(", $first $(, ", ", $column)*, ") FROM ", $table, " ORDER BY ", $key
                ),
                postgres: concat!(
                    "SELECT json_build_array(", $first $(, ", ", $column)*, ")::TEXT FROM ", $table,
                    " ORDER BY ", $key
                ),
            },
            insert: Sql {
                sqlite: insert!("json_each($1)", $table: $first $kind $(, $column $kinds)*),
                postgres: insert!("jsonb_array_elements($1::jsonb)", $table: $first $kind $(, $column $kinds)*),
            },
            go_on: go_on!($id $table),
        }
    };
}

pub(in crate::store) const TABLES: [Table; 17] = [
    table!(serial "vnet", "id": "id" int, "name" text, "address_space" text, "service_cidrs" text, "version" int, "created_at" int),
    table!(serial "subnet", "id": "id" int, "vnet" int, "name" text, "cidr4" text, "cidr6" text, "gateway4" text, "gateway6" text, "reserve_platform" int, "head" int, "length" int, "tail" text, "version" int, "created_at" int),
    table!(serial "reservation", "id": "id" int, "subnet" int, "name" text, "first" int, "next" int, "reason" text, "for_nodes" int, "platform" int, "version" int, "created_at" int),
    table!(serial "pool", "id": "id" int, "name" text, "max_pods" int, "nodes" int, "surge" text, "headroom" int, "alignment" text, "contiguous" text, "node_address" text, "rest_seconds" int, "version" int, "created_at" int),
    table!(plain "pool_subnet", "pool, position": "pool" int, "position" int, "subnet" int, "nodes" int),
    table!(plain "counter", "name": "name" text, "value" int),
    table!(serial "node", "id": "id" int, "name" text, "pool" int, "subnet" int, "own4" int, "own6" int, "uid" text, "mac" text, "machine" text, "allocator" text, "state" text, "deletion" text, "claim" int, "boot_id" text, "boot_seq" int, "floor_seq" int, "last_contact" int, "claimed_at" int, "version" int),
    table!(serial "block", "id": "id" int, "pool" int, "subnet" int, "node" int, "version" int),
    table!(plain "extent", "subnet, first": "subnet" int, "first" int, "next" int, "kind" text, "reservation" int, "node" int, "block" int, "leaving" int),
    table!(plain "allocation", "subnet, at_offset": "subnet" int, "at_offset" int, "state" text, "node_name" text, "network" text, "container_id" text, "if_name" text, "pod_namespace" text, "pod_name" text, "pod_uid" text, "since" int, "claim" int, "boot_seq" int, "seq" int, "node" int, "block" int, "extent_first" int, "extent_next" int),
    table!(plain "usage", "subnet, pool, slot": "subnet" int, "pool" int, "slot" int, "used" int),
    table!(plain "conflict", "subnet, at_offset": "subnet" int, "at_offset" int, "node" int, "mac" text, "seen_at" int),
    table!(plain "last_sync", "node": "node" int, "at" int, "claim" int, "boot_seq" int, "as_of" int, "block_version" int, "live" int, "refused" int),
    table!(plain "token", "id": "id" text, "hash" text, "name" text, "role" text, "node" text, "pool" text, "uses_left" int, "node_token_seconds" int, "created_at" int, "created_by" text, "expires_at" int, "last_used_at" int),
    table!(plain "former_token", "id": "id" text, "hash" text, "node" text, "claim" int, "ended_at" int),
    table!(plain "former_vm", "node, uid": "node" text, "uid" text, "ended_at" int),
    table!(serial "event", "id": "id" int, "at" int, "actor" text, "token" text, "source" text, "request_id" text, "action" text, "subject" text, "was" text, "became" text),
];
