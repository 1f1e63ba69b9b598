//! The beginning of a link: the certificate's client, the Hello and its proof, the answer.
use std::time::Instant;

use ntls::frame::{Frame, FrameReader, encode};
use ntls::instance::{is_proved, server_exporter};
use spec::messages::{Hello, HelloReply, PartitionName, WIRE_VERSION};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout_at;
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

use crate::link::Shared;
use crate::listener::Counted;
use crate::registry::Entrant;

/// This software and release, as links and logs show it.
pub const SOFTWARE: &str = concat!("hsmd ", env!("CARGO_PKG_VERSION"));

const READ_BYTES: usize = 4 << 10;
const SOFTWARE_CHARS_MAX: usize = 64;

/// A client that has proved who it is.
pub(crate) struct Greeted {
    /// The registered client or peer.
    pub(crate) client: Entrant,
    /// The application instance's public key.
    pub(crate) instance: [u8; 32],
    /// The wire version of the link.
    pub(crate) version: u32,
    /// The link is counted from its Hello on.
    pub(crate) counted: Counted,
    /// What the client says it is; fit for a log.
    pub(crate) software: String,
    /// The reader, behind the Hello.
    pub(crate) reader: FrameReader,
    /// What came behind the Hello and is not yet split.
    pub(crate) rest: Zeroizing<Vec<u8>>,
}

/// Reads and checks the Hello and answers it.
///
/// # Errors
/// When it does not come in time, cannot be read or does not prove the instance.
pub(crate) async fn greet(
    stream: &mut TlsStream<TcpStream>,
    shared: &Shared,
    deadline: Instant,
) -> Result<Greeted, String> {
    let mut reader = FrameReader::new();
    let talk = async {
        let (hello, rest) = read_hello(stream, &mut reader).await?;
        let judged = judge(stream, shared, &hello);
        let reply = match &judged {
            Ok(judged) => reply(shared, &judged.client, judged.version),
            Err(refusal) => HelloReply {
                version: WIRE_VERSION,
                refusal: refusal.clone(),
                software: SOFTWARE.to_owned(),
                ..HelloReply::default()
            },
        };
        let sent = async {
            stream.write_all(&encode(&Frame::HelloReply(reply))).await?;
            stream.flush().await
        };
        sent.await.map_err(|error| format!("the connection broke: {error}"))?;
        judged.map(|judged| (judged, hello.software, rest))
    };
    let (Judged { client, instance, version, counted }, software, rest) = timeout_at(deadline.into(), talk)
        .await
        .unwrap_or_else(|_| Err("no Hello came in time".to_owned()))?;
    let software = software.chars().filter(|c| !c.is_control()).take(SOFTWARE_CHARS_MAX).collect();
    Ok(Greeted { client, instance, version, software, reader, rest, counted })
}

/// What a client may use here now, in a link's wire version.
pub(crate) fn reply(shared: &Shared, client: &Entrant, version: u32) -> HelloReply {
    let name = |serial: &u64| Some(PartitionName { serial: *serial, label: shared.lookup.label(*serial)? });
    HelloReply {
        version,
        capabilities: 0,
        appliance: shared.lookup.appliance(),
        client: client.name.clone(),
        partitions: client.partitions.iter().filter_map(name).collect(),
        refusal: String::new(),
        software: SOFTWARE.to_owned(),
    }
}

async fn read_hello(
    stream: &mut TlsStream<TcpStream>,
    reader: &mut FrameReader,
) -> Result<(Hello, Zeroizing<Vec<u8>>), String> {
    let mut buffer = Zeroizing::new(vec![0; READ_BYTES]);
    loop {
        let count =
            stream.read(&mut buffer).await.map_err(|error| format!("the connection broke: {error}"))?;
        if count == 0 {
            return Err("the connection ended before a Hello".to_owned());
        }
        let mut bytes = &buffer[..count];
        match reader.take(&mut bytes).map_err(|error| error.to_string())? {
            Some(Frame::Hello(hello)) => return Ok((hello, Zeroizing::new(bytes.to_vec()))),
            Some(other) => return Err(format!("wanted a Hello first, found {:?}", other.kind())),
            None => {}
        }
    }
}

/// Who it is, when nothing is against the link.
struct Judged {
    client: Entrant,
    instance: [u8; 32],
    version: u32,
    counted: Counted,
}

/// The error is the sentence that the client hears.
fn judge(stream: &TlsStream<TcpStream>, shared: &Shared, hello: &Hello) -> Result<Judged, String> {
    let (_, connection) = stream.get_ref();
    let chain = connection.peer_certificates().and_then(<[_]>::split_first);
    let client = chain
        .and_then(|(der, intermediates)| shared.registry.identify(der, intermediates).ok())
        .ok_or_else(|| "this client is not registered".to_owned())?;
    let version = agreed(hello.version)?;
    let exporter = server_exporter(connection).map_err(|_| "the handshake is not done".to_owned())?;
    if !is_proved(&hello.instance, &hello.proof, &exporter) {
        return Err("the proof of the application instance does not belong to this connection".to_owned());
    }
    let instance = <[u8; 32]>::try_from(hello.instance.as_slice())
        .map_err(|_| "wanted an instance key of 32 bytes".to_owned())?;
    let counted = shared.connections.enter(client.identity).map_err(|refusal| {
        tracing::warn!(
            client = client.name,
            links = shared.connections.count(),
            "a link was refused: {refusal}"
        );
        refusal.to_string()
    })?;
    Ok(Judged { client, instance, version, counted })
}

/// The newest wire version that both sides speak.
fn agreed(wanted: u32) -> Result<u32, String> {
    if wanted == 0 {
        return Err(format!("wanted wire version 1 to {WIRE_VERSION}, found 0; upgrade the client"));
    }
    Ok(wanted.min(WIRE_VERSION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_of_both_versions_is_spoken_and_none_is_refused() {
        for wanted in [1, WIRE_VERSION, WIRE_VERSION + 1, u32::MAX] {
            assert_eq!(agreed(wanted), Ok(wanted.min(WIRE_VERSION)));
        }
        assert!(agreed(0).is_err_and(|text| text.contains("found 0")));
    }
}
