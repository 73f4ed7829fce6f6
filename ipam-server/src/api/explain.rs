//! What a deserializer found wrong, in words that name the field and the cure.

use ipam_api::wire::FieldError;
use serde_path_to_error::{Path, Segment};

/// One wrong field, with a JSON pointer (RFC 6901).
pub(super) fn field_error(path: &Path, message: &str) -> FieldError {
    let mut pointer = String::new();
    let mut last = None;
    for segment in path {
        let text = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => key.clone(),
            Segment::Enum { .. } | Segment::Unknown => continue,
        };
        push(&mut pointer, &text);
        last = Some(text);
    }
    let message = without_position(message);
    // The path of a field that is missing or there twice is its parent's; name the field itself.
    let of_parent =
        ["missing field ", "duplicate field "].into_iter().find_map(|prefix| quoted_after(message, prefix));
    if let Some(field) = of_parent {
        push(&mut pointer, field);
    } else if let Some(field) = quoted_after(message, "unknown field ")
        && last.as_deref() != Some(field)
    {
        push(&mut pointer, field);
    }
    // Addresses and CIDRs are refused in the same words; the field says which is wanted.
    let wants_cidr = pointer.contains("/addressSpace") || pointer.to_ascii_lowercase().contains("cidrs");
    let detail = if wants_cidr && message == "invalid IP address syntax" {
        format!("is not a CIDR: write {CIDR}")
    } else {
        reworded(message)
    };
    FieldError { pointer: shortened(&pointer), detail: shortened(&detail) }
}

const CIDR: &str = "an address and a prefix length, such as 10.240.0.0/16 or fd00:10::/64";

fn push(pointer: &mut String, segment: &str) {
    pointer.push('/');
    pointer.push_str(&segment.replace('~', "~0").replace('/', "~1"));
}

/// `serde_json`'s messages end in a position that the pointer says better.
fn without_position(message: &str) -> &str {
    message.rfind(" at line ").map_or(message, |at| &message[..at])
}

fn quoted_after<'m>(message: &'m str, prefix: &str) -> Option<&'m str> {
    let rest = message.strip_prefix(prefix)?.strip_prefix('`')?;
    rest.find('`').map(|end| &rest[..end])
}

/// The message with its cure.
pub(super) fn reworded(message: &str) -> String {
    if quoted_after(message, "missing field ").is_some() {
        return "is required: give it a value".to_owned();
    }
    if quoted_after(message, "unknown field ").is_some() {
        return match message.split_once(", ") {
            Some((_, known)) if known.starts_with("expected") => {
                format!("is not known here: leave it out, or use {}", listed(known))
            }
            _ => "is not known here: leave it out".to_owned(),
        };
    }
    if quoted_after(message, "duplicate field ").is_some() {
        return "is given twice: give it once".to_owned();
    }
    if let Some(value) = quoted_after(message, "unknown variant ") {
        let known = message.split_once(", ").map_or(String::new(), |(_, known)| listed(known));
        return format!("{value:?} is not a value of this field: give {known}");
    }
    for prefix in ["invalid type: ", "invalid value: ", "invalid length "] {
        if let Some(rest) = message.strip_prefix(prefix)
            && let Some((got, wanted)) = rest.rsplit_once(", expected ")
        {
            return format!("{got} is not valid here: give {}", plain(wanted));
        }
    }
    match message {
        "invalid IP address syntax" => {
            "is not an IP address: write one such as 10.240.0.10 or fd00:10::10".to_owned()
        }
        "invalid IPv4 address syntax" => "is not an IPv4 address: write one such as 10.240.0.10".to_owned(),
        "invalid IPv6 address syntax" => "is not an IPv6 address: write one such as fd00:10::10".to_owned(),
        message => message.to_owned(),
    }
}

/// "expected one of `a`, `b`" without its frame.
fn listed(known: &str) -> String {
    known.trim_start_matches("expected ").trim_start_matches("one of ").replace('`', "")
}

/// A caller's own text comes back, but not a megabyte of it: what is said before and after it is kept.
pub(super) fn shortened(text: &str) -> String {
    const KEPT: usize = 200;
    let end_of_head = text.char_indices().nth(KEPT).map(|(at, _)| at);
    let start_of_tail = text.char_indices().rev().nth(KEPT - 1).map(|(at, _)| at);
    match (end_of_head, start_of_tail) {
        (Some(head), Some(tail)) if head < tail => format!("{}…{}", &text[..head], &text[tail..]),
        _ => text.to_owned(),
    }
}

/// serde's names of types, as JSON calls them.
fn plain(wanted: &str) -> String {
    match wanted {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more".to_owned(),
        "a sequence" => "an array".to_owned(),
        "a map" => "an object".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "IP address" => "an IP address such as 10.240.0.10 or fd00:10::10".to_owned(),
        "IPv4 or IPv6 network address" => CIDR.to_owned(),
        wanted if wanted.starts_with("struct ") => "an object".to_owned(),
        wanted if wanted.contains("enum ") => "one of its values as a string".to_owned(),
        wanted => wanted.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[serde(rename = "a/b")]
        _ab: u32,
        _cidrs: Vec<ipnet::IpNet>,
    }

    #[derive(Debug, Deserialize)]
    struct Outer {
        _items: Vec<Inner>,
    }

    fn refused(json: &str) -> FieldError {
        let mut json = serde_json::Deserializer::from_str(json);
        let error = serde_path_to_error::deserialize::<_, Outer>(&mut json).unwrap_err();
        field_error(error.path(), &error.inner().to_string())
    }

    #[test]
    fn long_texts_keep_their_ends() {
        let short = "ü".repeat(400);
        assert_eq!(shortened(&short), short);
        let long = format!("a{}z", "ü".repeat(1_000_000));
        let kept = shortened(&long);
        assert!(kept.starts_with('a') && kept.ends_with('z') && kept.chars().count() == 401, "{kept}");
    }

    #[test]
    fn errors_point_at_the_field_and_say_the_cure() {
        for (json, pointer, detail) in [
            ("{}", "/_items", "is required"),
            ("[]", "", "give"),
            (r#"{"_items": [{"a/b": "x"}]}"#, "/_items/0/a~1b", "whole number"),
            (r#"{"_items": [{"a/b": -1}]}"#, "/_items/0/a~1b", "0 or more"),
            (r#"{"_items": [{"c": 1}]}"#, "/_items/0/c", "use a/b or _cidrs"),
            (r#"{"_items": [{"_cidrs": []}]}"#, "/_items/0/a~1b", "is required"),
            (r#"{"_items": [{"_cidrs": ["10.0.0.0"]}]}"#, "/_items/0/_cidrs/0", "prefix length"),
            (r#"{"_items": 5}"#, "/_items", "an array"),
        ] {
            let error = refused(json);
            assert_eq!(error.pointer, pointer, "{json}: {}", error.detail);
            assert!(error.detail.contains(detail), "{json}: {}", error.detail);
        }
    }
}
