use ipam_api::wire::{FieldError, PodRef};
use std::ops::RangeInclusive;

/// A text of so many characters.
pub(crate) fn text_length(pointer: &str, text: &str, allowed: RangeInclusive<usize>) -> Option<FieldError> {
    let length = text.chars().count();
    (!allowed.contains(&length) || text.contains('\0')).then(|| FieldError {
        pointer: pointer.to_owned(),
        detail: format!("has {length} characters: give {} to {}, and no NUL", allowed.start(), allowed.end()),
    })
}

/// A number that is not too large.
pub(crate) fn at_most(pointer: &str, value: u64, most: u64) -> Option<FieldError> {
    (value > most).then(|| FieldError {
        pointer: pointer.to_owned(),
        detail: format!("is too large ({value}): give at most {most}"),
    })
}

/// A list with at least one item.
pub(crate) fn not_empty<T>(pointer: &str, items: &[T]) -> Option<FieldError> {
    items
        .is_empty()
        .then(|| FieldError { pointer: pointer.to_owned(), detail: "is empty: name at least one".to_owned() })
}

/// A MAC address with colons.
pub(crate) fn mac_address(pointer: &str, text: &str) -> Option<FieldError> {
    let octets: Vec<&str> = text.split(':').collect();
    let valid = octets.len() == 6
        && octets.iter().all(|octet| octet.len() == 2 && octet.bytes().all(|byte| byte.is_ascii_hexdigit()));
    (!valid).then(|| FieldError {
        pointer: pointer.to_owned(),
        detail: "is not a MAC address: write six pairs of hex digits such as 02:00:0a:f0:00:0a".to_owned(),
    })
}

/// The names of a pod, as long as Kubernetes lets them be.
pub(crate) fn pod_texts(pointer: &str, pod: &PodRef) -> Vec<FieldError> {
    [("namespace", &pod.namespace), ("name", &pod.name), ("uid", &pod.uid)]
        .into_iter()
        .filter_map(|(field, text)| text_length(&format!("{pointer}/{field}"), text, 0..=253))
        .collect()
}
