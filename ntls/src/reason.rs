//! Why a link is down, in sentences for operators: what was wanted, what was found, what to do.
use std::io::{self, ErrorKind};

use rustls::{AlertDescription, CertificateError, Error};

use crate::certificate::Certificate;
use crate::channel::ServerAddress;

/// No connection came about.
pub(crate) fn connect(server: &ServerAddress, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => format!(
            "{server} refuses the connection: nothing listens there; start hsmd or correct ServerName and ServerPort"
        ),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => {
            format!("{server} does not answer: host down, network cut or port filtered")
        }
        _ => format!("no connection to {server}: {error}; check ServerName, ServerPort and the network"),
    }
}

/// The connection was made and ended, or went silent, before the appliance had said who it is.
pub(crate) fn early_end(server: &ServerAddress, error: &io::Error, first: &[u8]) -> String {
    if !is_tls(first) {
        return no_tls(server, first);
    }
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock if first.is_empty() => format!(
            "{server} took the connection and answered nothing: wanted TLS 1.3 of an hsmd there; correct ServerPort"
        ),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => {
            format!("{server} began a handshake and went silent: look at the log of hsmd there")
        }
        _ => format!(
            "{server} closed the connection during the handshake ({error}): look at the log of hsmd there"
        ),
    }
}

/// TLS failed; `first` is what the peer sent first, `own` our certificate.
pub(crate) fn tls(server: &ServerAddress, error: &Error, first: &[u8], own: &Certificate) -> String {
    let certificate = || format!("(CN {}, SHA-256 {})", own.name(), own.fingerprint_text());
    match error {
        Error::AlertReceived(AlertDescription::AccessDenied | AlertDescription::UnknownCA) => format!(
            "{server} does not know this client's certificate {}: register exactly this one there with `hsm client \
             register -client {} -cert FILE`",
            certificate(),
            own.name()
        ),
        Error::AlertReceived(AlertDescription::CertificateExpired) => format!(
            "{server} refuses this client's certificate {} as out of time (its last day is {}): make a new one with \
             `vtl createCert` and register it",
            certificate(),
            own.not_after_text()
        ),
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            format!(
                "{server} demands a client certificate and got none: set ClientCertFile and ClientPrivKeyFile"
            )
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            format!("{server} speaks no TLS 1.3, which is wanted: it is no hsmd; correct ServerPort")
        }
        Error::AlertReceived(alert) => format!(
            "{server} ended the handshake with alert {alert:?}; this client's certificate is {}; look at the log of \
             hsmd there",
            certificate()
        ),
        Error::InvalidCertificate(CertificateError::Other(other)) => format!("{server}: {other}"),
        _ if !is_tls(first) => no_tls(server, first),
        _ => format!("TLS with {server} failed: {error}"),
    }
}

/// TLS records begin with a content type of 20 to 23 and major version 3; nothing received says nothing.
fn is_tls(first: &[u8]) -> bool {
    match first {
        [] => true,
        [kind] => (20..=23).contains(kind),
        [kind, major, ..] => (20..=23).contains(kind) && *major == 3,
    }
}

fn no_tls(server: &ServerAddress, first: &[u8]) -> String {
    let printable = first.iter().take_while(|byte| (32..127).contains(*byte)).count();
    let found = match first.get(..printable).filter(|_| printable >= 4) {
        Some(text) => format!("text that begins {:?}", String::from_utf8_lossy(text)),
        None => {
            let hex: Vec<String> = first.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            format!("bytes that begin {}", hex.join(" "))
        }
    };
    format!("{server} speaks no TLS: wanted TLS 1.3 of an hsmd, found {found}; correct ServerPort")
}
