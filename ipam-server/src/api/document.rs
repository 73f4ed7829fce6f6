//! The OpenAPI document: what the derives say of the routes, tidied where they say it clumsily.

use super::access;
use ipam_api::wire::Problem;
use serde_json::{Map, Value, json};
use utoipa::{Modify, OpenApi};

/// What is said of the API as a whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "ipam-server",
        description = "Reserves every node's pod addresses before the node exists.\n\n\
            Errors are problems (RFC 9457): `type` is for programs, `detail` says what happened and the cure, and \
            `errors` points at each wrong field. Things that people edit have an `ETag`, and changes of them take \
            `If-Match` and `dryRun=true`. Lists come in pages."
    ),
    tags(
        (name = "vnets", description = "Address spaces"),
        (name = "subnets", description = "Layer-2 segments, shared by VMs and pods, and the extents that tile them"),
        (name = "reservations", description = "Ranges kept out of planning"),
        (name = "pools", description = "Classes of nodes and the blocks reserved for them"),
        (name = "nodes", description = "VMs that have claimed a block"),
        (name = "allocations", description = "Addresses held by pods"),
        (name = "planning", description = "What would fit, and what is used"),
        (name = "access", description = "Credentials, and the record of what was done with them"),
        (name = "service", description = "The service itself"),
    ),
    components(schemas(Problem)),
    modifiers(&Schemes)
)]
pub(super) struct Base;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        access::schemes(document.components.get_or_insert_default());
    }
}

/// The document as text: JSON with sorted keys, indented, with a final newline.
pub(super) fn text(document: &utoipa::openapi::OpenApi) -> String {
    // Serialising plain data to memory cannot fail.
    let mut value = serde_json::to_value(document).unwrap_or_default();
    tidy_schemas(&mut value);
    tidy_parameters(&mut value);
    let mut text = serde_json::to_string_pretty(&sorted(value)).unwrap_or_default();
    text.push('\n');
    text
}

fn tidy_schemas(document: &mut Value) {
    let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) else {
        return;
    };
    let originals = schemas.clone();
    for (name, schema) in schemas.iter_mut() {
        if let Some(Value::Array(parts)) = schema.get("allOf") {
            let description = schema.get("description").cloned();
            *schema = joined(parts, &originals);
            if let (Some(schema), Some(description)) = (schema.as_object_mut(), description) {
                schema.insert("description".to_owned(), description);
            }
        }
        // A page names its items' type instead of repeating it, so that clients have one type for both.
        if let Some(item) = name.strip_prefix("Listing_")
            && originals.contains_key(item)
            && let Some(items) = schema.pointer_mut("/properties/items/items")
        {
            *items = json!({ "$ref": format!("#/components/schemas/{item}") });
        }
    }
}

/// A flattened struct is one object: "all of" an object that knows no other members can be met by none that has some.
fn joined(parts: &[Value], schemas: &Map<String, Value>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for part in parts {
        let named = part.get("$ref").and_then(Value::as_str).and_then(|name| name.rsplit('/').next());
        let part = named.and_then(|name| schemas.get(name)).unwrap_or(part);
        let inner;
        let part = match part.get("allOf") {
            Some(Value::Array(parts)) => {
                inner = joined(parts, schemas);
                &inner
            }
            _ => part,
        };
        if let Some(Value::Object(more)) = part.get("properties") {
            properties.extend(more.clone());
        }
        if let Some(Value::Array(more)) = part.get("required") {
            required.extend(more.iter().cloned());
        }
    }
    json!({ "type": "object", "properties": properties, "required": required })
}

/// A parameter that may be left out is never null.
fn tidy_parameters(document: &mut Value) {
    let operations = document
        .get_mut("paths")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flat_map(|paths| paths.values_mut())
        .filter_map(Value::as_object_mut)
        .flat_map(|path| path.values_mut());
    for operation in operations {
        let Some(parameters) = operation.get_mut("parameters").and_then(Value::as_array_mut) else {
            continue;
        };
        for parameter in parameters {
            let Some(schema) = parameter.get_mut("schema").and_then(Value::as_object_mut) else {
                continue;
            };
            if let Some(Value::Array(types)) = schema.get("type")
                && let Some(only) = types.iter().find(|name| *name != "null").cloned()
            {
                schema.insert("type".to_owned(), only);
            }
            if let Some(Value::Array(choices)) = schema.get("oneOf")
                && let Some(Value::Object(only)) =
                    choices.iter().find(|choice| choice.get("type") != Some(&json!("null"))).cloned()
            {
                *schema = only;
            }
        }
    }
}

/// The order of members must not depend on how `serde_json` was built.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<(String, Value)> = members.into_iter().collect();
            members.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(members.into_iter().map(|(name, value)| (name, sorted(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        value => value,
    }
}
