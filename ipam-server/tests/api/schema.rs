//! Checks a value against a schema of the document: the keywords that it uses, and a panic on any other.

use regex::Regex;
use serde_json::Value;

/// What is wrong with `value`, each finding with its JSON pointer; nothing if it is as the schema says.
pub(crate) fn findings(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    Checker { document }.check(schema, value, "", &mut found);
    found
}

struct Checker<'d> {
    document: &'d Value,
}

impl Checker<'_> {
    fn check(&self, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
        let Value::Object(keywords) = schema else { panic!("{at}: not a schema: {schema}") };
        for (keyword, expected) in keywords {
            let fine = match keyword.as_str() {
                "description" | "title" | "example" | "examples" | "default" => true,
                "$ref" => {
                    self.check(self.resolve(expected), value, at, found);
                    true
                }
                "type" => match expected {
                    Value::Array(types) => types.iter().any(|one| is_type(one, value)),
                    one => is_type(one, value),
                },
                "enum" => expected.as_array().unwrap().contains(value),
                "allOf" => {
                    for part in expected.as_array().unwrap() {
                        self.check(part, value, at, found);
                    }
                    true
                }
                "oneOf" => {
                    let fits = |part: &&Value| findings(self.document, part, value).is_empty();
                    expected.as_array().unwrap().iter().filter(fits).count() == 1
                }
                "properties" => {
                    for (name, schema) in expected.as_object().unwrap() {
                        if let Some(member) = value.get(name) {
                            self.check(schema, member, &format!("{at}/{name}"), found);
                        }
                    }
                    true
                }
                "required" => value.as_object().is_none_or(|object| {
                    expected
                        .as_array()
                        .unwrap()
                        .iter()
                        .all(|name| object.contains_key(name.as_str().unwrap()))
                }),
                "additionalProperties" => {
                    assert_eq!(expected, &Value::Bool(false), "{at}: only false is known here");
                    value.as_object().is_none_or(|object| {
                        let known = keywords.get("properties").and_then(Value::as_object);
                        object.keys().all(|name| known.is_some_and(|known| known.contains_key(name)))
                    })
                }
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(expected, item, &format!("{at}/{index}"), found);
                    }
                    true
                }
                "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= number(expected)),
                "maxItems" => value.as_array().is_none_or(|items| items.len() as u64 <= number(expected)),
                "minLength" => {
                    value.as_str().is_none_or(|text| text.chars().count() as u64 >= number(expected))
                }
                "maxLength" => {
                    value.as_str().is_none_or(|text| text.chars().count() as u64 <= number(expected))
                }
                "minimum" => value.as_f64().is_none_or(|value| value >= expected.as_f64().unwrap()),
                "maximum" => value.as_f64().is_none_or(|value| value <= expected.as_f64().unwrap()),
                "pattern" => {
                    let pattern = Regex::new(expected.as_str().unwrap()).unwrap();
                    value.as_str().is_none_or(|text| pattern.is_match(text))
                }
                "format" => match expected.as_str().unwrap() {
                    "date-time" => value.as_str().is_none_or(|text| text.parse::<jiff::Timestamp>().is_ok()),
                    "int32" | "int64" => true,
                    other => panic!("{at}: unknown format {other}"),
                },
                other => panic!("{at}: unknown keyword {other}"),
            };
            if !fine {
                found.push(format!("{at}: {value} breaks {keyword}: {expected}"));
            }
        }
    }

    fn resolve(&self, reference: &Value) -> &Value {
        let pointer = reference.as_str().and_then(|text| text.strip_prefix('#')).unwrap();
        self.document.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn is_type(name: &Value, value: &Value) -> bool {
    match name.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("unknown type {other}"),
    }
}

#[test]
fn the_checker_finds_what_is_wrong() {
    let document = serde_json::json!({"components": {"schemas": {
        "Name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 3},
        "Thing": {"type": "object", "required": ["name"], "additionalProperties": false, "properties": {
            "name": {"$ref": "#/components/schemas/Name"},
            "list": {"type": ["array", "null"], "minItems": 1, "items": {"type": "integer", "minimum": 0}},
            "kind": {"oneOf": [{"type": "null"}, {"type": "string", "enum": ["a"]}]}
        }}
    }}});
    let schema = serde_json::json!({"$ref": "#/components/schemas/Thing"});
    for (good, text) in [
        (true, r#"{"name": "ab"}"#),
        (true, r#"{"name": "ab", "list": null, "kind": "a"}"#),
        (false, "{}"),
        (false, r#"{"name": "AB"}"#),
        (false, r#"{"name": "abcd"}"#),
        (false, r#"{"name": "ab", "other": 1}"#),
        (false, r#"{"name": "ab", "list": []}"#),
        (false, r#"{"name": "ab", "list": [-1]}"#),
        (false, r#"{"name": "ab", "kind": "b"}"#),
        (false, "[]"),
    ] {
        let found = findings(&document, &schema, &serde_json::from_str(text).unwrap());
        assert_eq!(found.is_empty(), good, "{text}: {found:?}");
    }
}
