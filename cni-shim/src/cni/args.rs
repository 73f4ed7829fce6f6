use ipam_api::wire::PodRef;

/// What `CNI_ARGS` says that matters here: unknown keys are ignored, the last of
/// duplicates counts, and a value may contain `=`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CniArgs {
    /// The pod, as far as the runtime names it.
    pub pod: Option<PodRef>,
    /// A fixed address that the runtime asks for.
    pub ip: Option<String>,
    /// A fixed MAC address that the runtime asks for.
    pub mac: Option<String>,
}

impl CniArgs {
    /// Longest name the service keeps of a pod.
    const LONGEST: usize = 253;

    /// Reads `K=V;K=V`; what is not a pair is ignored.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut args = Self::default();
        let mut pod = PodRef::default();
        for (key, value) in text.split(';').filter_map(|pair| pair.split_once('=')) {
            let name = || if value.len() <= Self::LONGEST { value.to_owned() } else { String::new() };
            let filled = || (!value.is_empty()).then(|| value.to_owned());
            match key {
                "K8S_POD_NAMESPACE" => pod.namespace = name(),
                "K8S_POD_NAME" => pod.name = name(),
                "K8S_POD_UID" => pod.uid = name(),
                "IP" => args.ip = filled(),
                "MAC" => args.mac = filled(),
                _ => {}
            }
        }
        args.pod = (pod != PodRef::default()).then_some(pod);
        args
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn containerd_and_podman_name_their_pods() {
        let args = CniArgs::parse(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=u-1;K8S_POD_INFRA_CONTAINER_ID=x",
        );
        let pod = args.pod.unwrap();
        assert_eq!((pod.namespace.as_str(), pod.name.as_str(), pod.uid.as_str()), ("shop", "web", "u-1"));
        assert_eq!(CniArgs::parse("IgnoreUnknown=1;K8S_POD_NAME=c").pod.unwrap().name, "c");
        assert_eq!(CniArgs::parse(""), CniArgs::default());
    }

    #[test]
    fn the_last_of_duplicates_counts_and_values_keep_their_equals_signs() {
        let args = CniArgs::parse("K8S_POD_NAME=a;;junk;K8S_POD_NAME=b=c;IP=;MAC=02:00:00:00:00:01");
        assert_eq!(args.pod.unwrap().name, "b=c");
        assert_eq!(args.ip, None);
        assert_eq!(args.mac.as_deref(), Some("02:00:00:00:00:01"));
    }

    proptest! {
        #[test]
        fn no_text_upsets_it(text in ".*") {
            let _ = CniArgs::parse(&text);
        }
    }
}
