//! Reading JSON as Go's decoder does, where runtimes and other plugins rely on it.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// Renames the keys that differ from a known one only in case, unless the known
/// one is there too: Go matches keys so, and some runtimes send `HostPort`.
pub(super) fn known_case(object: Map<String, Value>, known: &[&str]) -> Map<String, Value> {
    let mut renamed = Map::new();
    let mut others = Vec::new();
    for (key, value) in object {
        if known.contains(&key.as_str()) {
            renamed.insert(key, value);
        } else {
            others.push((key, value));
        }
    }
    for (key, value) in others {
        match known.iter().find(|name| name.eq_ignore_ascii_case(&key)) {
            Some(&name) if !renamed.contains_key(name) => renamed.insert(name.to_owned(), value),
            Some(_) => None,
            None => renamed.insert(key, value),
        };
    }
    renamed
}

/// [`known_case`] for a value and all that is in it.
pub(super) fn known_case_within(value: Value, known: &[&str]) -> Value {
    match value {
        Value::Object(object) => {
            let renamed = known_case(object, known).into_iter();
            Value::Object(renamed.map(|(key, value)| (key, known_case_within(value, known))).collect())
        }
        Value::Array(values) => {
            Value::Array(values.into_iter().map(|value| known_case_within(value, known)).collect())
        }
        other => other,
    }
}

/// `null` is the default: Go writes a nil list, map or pointer so.
pub(super) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_exact_key_wins_over_its_other_spellings() {
        let Value::Object(object) = json!({"MTU": 1, "mtu": 2, "Uplink": "eth0", "other": 3}) else {
            unreachable!()
        };
        let renamed = known_case(object, &["mtu", "uplink"]);
        assert_eq!(Value::Object(renamed), json!({"mtu": 2, "uplink": "eth0", "other": 3}));
    }
}
