//! JSON as it came: fields in their order, those unknown here included.

use crate::failure::Failure;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::Number;
use std::fmt;

/// A JSON value whose objects keep the order of their fields.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Document {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Document>),
    Object(Vec<(String, Document)>),
}

impl Document {
    /// The body of an answer; nothing where there is none.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Failure> {
        if body.is_empty() {
            return Ok(Self::Null);
        }
        serde_json::from_slice(body)
            .map_err(|error| Failure::Other(format!("cannot read the service's answer: {error}")))
    }

    /// What a value of our own is in JSON.
    pub(crate) fn of(value: &impl Serialize) -> Result<Self, Failure> {
        let body = serde_json::to_vec(value)
            .map_err(|error| Failure::Other(format!("cannot print JSON: {error}")))?;
        Self::parse(&body)
    }

    /// Pages of lists as one list.
    pub(crate) fn listing<'a>(bodies: impl Iterator<Item = &'a [u8]>) -> Result<Self, Failure> {
        let mut items = Vec::new();
        for body in bodies {
            if let Self::Object(fields) = Self::parse(body)? {
                for (name, value) in fields {
                    if let (Self::List(page), "items") = (value, name.as_str()) {
                        items.extend(page);
                    }
                }
            }
        }
        Ok(Self::Object(vec![("items".to_owned(), Self::List(items))]))
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(number) => number.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => serializer.collect_seq(items),
            Self::Object(fields) => serializer.collect_map(fields.iter().map(|(name, value)| (name, value))),
        }
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyJson)
    }
}

struct AnyJson;

impl<'de> Visitor<'de> for AnyJson {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Document, E> {
        Ok(Document::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Document, E> {
        Ok(Document::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Document, E> {
        Ok(Document::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Document, E> {
        Ok(Document::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Document, E> {
        Ok(Number::from_f64(value).map_or(Document::Null, Document::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Document, E> {
        Ok(Document::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Document, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Document::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Document, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = object.next_entry()? {
            fields.push(field);
        }
        Ok(Document::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_keeps_what_came() {
        let text = r#"{"z":1,"a":[null,true,-2,1.5,"x"],"m":{"unknown":18446744073709551615}}"#;
        let document = Document::parse(text.as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&document).unwrap(), text);
    }

    #[test]
    fn pages_become_one_list() {
        let pages = [r#"{"items":[1,2],"next":"2"}"#, r#"{"items":[3]}"#];
        let list = Document::listing(pages.iter().map(|page| page.as_bytes())).unwrap();
        assert_eq!(serde_json::to_string(&list).unwrap(), r#"{"items":[1,2,3]}"#);
    }
}
