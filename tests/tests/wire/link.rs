//! What the appliance refuses before any call: certificates, frames; and what key exchange it takes.
use ntls::certificate::{self, Identity, Wanted};
use ntls::exchange::ExchangeError;
use ntls::frame::Frame;
use tests::wire::Client;

pub(crate) fn key_exchange_is_hybrid(client: &Client) {
    let session = client.connect().unwrap();
    assert_eq!(session.negotiated_group().as_deref(), Some("X25519MLKEM768"));
}

pub(crate) fn frames_that_are_none(client: &Client) {
    let oversized = [0xffu8, 0xff, 0xff, 0xff, 3];
    let unknown_kind = [0u8, 0, 0, 1, 200];
    let truncated_header = [0u8, 0, 0, 5, 3, 1, 2, 3, 4];
    let second_hello = [0u8, 0, 0, 1, 1];
    for bytes in [&oversized[..], &unknown_kind, &truncated_header, &second_hello] {
        let mut session = client.connect().unwrap();
        session.send_bytes(bytes).unwrap();
        let closed = |heard: Result<Frame, ExchangeError>| {
            matches!(heard, Ok(Frame::Close(_)) | Err(ExchangeError::Lost(_)))
        };
        assert!(closed(session.receive()), "the link stays open after {bytes:?}");
    }
    // Half a frame, and then silence: the link may wait, the appliance goes on.
    let mut session = client.connect().unwrap();
    session.send_bytes(&[0, 0, 1]).unwrap();
}

pub(crate) fn certificates_that_are_not_registered(client: &Client) {
    let now_ms = u64::try_from(
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis(),
    )
    .unwrap();
    let same_name = client.identity.certificate().name().to_owned();
    for (name, days, at) in [
        ("nobody", 10, now_ms),
        (same_name.as_str(), 10, now_ms),
        (same_name.as_str(), 1, now_ms - 9 * 86_400_000),
    ] {
        let made = certificate::self_signed(&Wanted { name, hosts: &[], now_ms: at, days }).unwrap();
        let identity = Identity::from_pem(made.certificate_pem.as_bytes(), made.key_pem.as_bytes()).unwrap();
        let stranger = Client {
            configuration: client.configuration.clone(),
            identity,
            trust: client.trust.clone(),
            instance: ntls::instance::InstanceKey::generate(),
        };
        let Err(error) = stranger.connect() else {
            panic!("a certificate of {name} that is not registered was accepted")
        };
        assert!(error.to_string().contains("regist") || error.to_string().contains("expired"), "{error}");
    }
}
