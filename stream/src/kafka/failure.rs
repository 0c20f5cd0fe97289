//! From librdkafka's errors to ours.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use undertone_error::{Error, ErrorKind};

/// What the broker or the client says about itself, in our terms: whose fault it is decides what happens next.
pub(super) fn kind(code: RDKafkaErrorCode) -> ErrorKind {
    use RDKafkaErrorCode as C;
    match code {
        C::TopicAuthorizationFailed
        | C::GroupAuthorizationFailed
        | C::ClusterAuthorizationFailed
        | C::TransactionalIdAuthorizationFailed
        | C::SaslAuthenticationFailed
        | C::UnsupportedSASLMechanism
        | C::InvalidGroupId
        | C::InvalidTopic => ErrorKind::InvalidConfig,
        C::UnknownTopicOrPartition | C::UnknownTopic | C::UnknownPartition => ErrorKind::NotFound,
        // Somebody else owns what we thought was ours: read where things stand, and go on from there.
        C::IllegalGeneration
        | C::UnknownMemberId
        | C::RebalanceInProgress
        | C::FencedInstanceId
        | C::Fenced
        | C::ProducerFenced
        | C::InvalidProducerEpoch
        | C::InvalidProducerIdMapping
        | C::ConcurrentTransactions => ErrorKind::Conflict,
        C::AutoOffsetReset | C::OffsetOutOfRange => ErrorKind::Corrupt,
        C::MessageSizeTooLarge | C::InvalidRecord | C::PolicyViolation => ErrorKind::TooLarge,
        C::UnsupportedVersion | C::UnsupportedFeature | C::NotImplemented => ErrorKind::Unsupported,
        C::OperationTimedOut | C::RequestTimedOut | C::MessageTimedOut => ErrorKind::DeadlineExceeded,
        _ => ErrorKind::Unavailable,
    }
}

/// An error of the client, with what was being done.
pub(super) fn failed(doing: &'static str, error: KafkaError) -> Error {
    let code = match &error {
        KafkaError::ClientConfig(_, what, key, value) => {
            let wrong = Error::new(ErrorKind::InvalidConfig, "kafka client property is wrong").with("property", key);
            // A password may be the value.
            let shown = if is_secret(key) { "(not shown)" } else { value };
            return wrong.with("value", shown).source(what.clone()).help("see librdkafka's CONFIGURATION.md");
        }
        KafkaError::Transaction(error) => Some(error.code()),
        other => other.rdkafka_error_code(),
    };
    let kind = match &error {
        KafkaError::ClientCreation(_) => ErrorKind::InvalidConfig,
        _ => code.map_or(ErrorKind::Unavailable, kind),
    };
    let found = Error::new(kind, doing).source(error);
    match kind {
        // We stamp our own records, so it is no record's fault.
        _ if code == Some(RDKafkaErrorCode::InvalidTimestamp) => {
            found.help("is this machine's clock right? it is further ahead of the broker's than the topic allows")
        }
        ErrorKind::InvalidConfig => found.help("check [kafka] and what the broker allows this user"),
        ErrorKind::TooLarge => {
            found.help("the topic refuses the record: raise its max.message.bytes, as `undertone check` says")
        }
        ErrorKind::NotFound => {
            found.help("make the topics with `undertone init`, or correct their names in [kafka.topics]")
        }
        ErrorKind::Unavailable | ErrorKind::DeadlineExceeded => {
            found.help("is the broker up, and is kafka.brokers right?")
        }
        _ => found,
    }
}

/// Whether a librdkafka property holds what must never be printed.
pub(super) fn is_secret(property: &str) -> bool {
    let name = property.to_ascii_lowercase();
    ["password", "passphrase", "secret", "token", "sasl.jaas", "key.pem", "private.key", "oauthbearer.config"]
        .iter()
        .any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use undertone_error::Fault;

    use super::*;

    #[test]
    fn what_a_broker_may_get_over_is_outside_and_what_needs_a_person_is_not() {
        for code in [
            RDKafkaErrorCode::BrokerTransportFailure,
            RDKafkaErrorCode::NotCoordinator,
            RDKafkaErrorCode::AllBrokersDown,
            RDKafkaErrorCode::InvalidTimestamp,
        ] {
            assert_eq!(failed("x", KafkaError::Global(code)).fault(), Fault::Outside, "{code:?}");
        }
        for code in [RDKafkaErrorCode::SaslAuthenticationFailed, RDKafkaErrorCode::AutoOffsetReset] {
            assert_ne!(failed("x", KafkaError::Global(code)).fault(), Fault::Outside, "{code:?}");
        }
    }

    #[test]
    fn secrets_are_known_by_their_property() {
        for name in ["sasl.password", "ssl.key.password", "sasl.oauthbearer.client.secret", "ssl.keystore.password"] {
            assert!(is_secret(name), "{name}");
        }
        assert!(!is_secret("sasl.username"));
    }
}
