//! The beginning of a link: the certificate's client, the Hello and its proof, the answer.
use std::sync::Arc;
use std::time::Instant;

use ntls::frame::{Frame, FrameReader, encode};
use ntls::instance::{is_proved, server_exporter};
use spec::messages::{Hello, HelloReply, PartitionName, WIRE_VERSION};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout_at;
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

use crate::book::ClientRow;
use crate::link::Shared;

/// This software and release, as links and logs show it.
pub const SOFTWARE: &str = concat!("hsmd ", env!("CARGO_PKG_VERSION"));

const READ_BYTES: usize = 4 << 10;
const SOFTWARE_CHARS_MAX: usize = 64;

/// A client that has proved who it is.
pub(crate) struct Greeted {
    /// The registered client.
    pub(crate) client: Arc<ClientRow>,
    /// The application instance's public key.
    pub(crate) instance: [u8; 32],
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
            Ok((client, _)) => reply(shared, client),
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
        judged.map(|(client, instance)| (client, instance, hello.software, rest))
    };
    let (client, instance, software, rest) = timeout_at(deadline.into(), talk)
        .await
        .unwrap_or_else(|_| Err("no Hello came in time".to_owned()))?;
    let software = software.chars().filter(|c| !c.is_control()).take(SOFTWARE_CHARS_MAX).collect();
    Ok(Greeted { client, instance, software, reader, rest })
}

/// What a client may use here now.
pub(crate) fn reply(shared: &Shared, client: &ClientRow) -> HelloReply {
    let name = |serial: &u64| Some(PartitionName { serial: *serial, label: shared.lookup.label(*serial)? });
    HelloReply {
        version: WIRE_VERSION,
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

/// Who it is; the error is the sentence that the client hears.
fn judge(
    stream: &TlsStream<TcpStream>,
    shared: &Shared,
    hello: &Hello,
) -> Result<(Arc<ClientRow>, [u8; 32]), String> {
    let (_, connection) = stream.get_ref();
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    let client = certificate
        .and_then(|der| shared.registry.client(&ntls::certificate::fingerprint(der)))
        .ok_or_else(|| "this client is not registered".to_owned())?;
    if hello.version == 0 {
        return Err(format!("wanted wire version 1 to {WIRE_VERSION}, found 0; upgrade the client"));
    }
    let exporter = server_exporter(connection).map_err(|_| "the handshake is not done".to_owned())?;
    if !is_proved(&hello.instance, &hello.proof, &exporter) {
        return Err("the proof of the application instance does not belong to this connection".to_owned());
    }
    let instance = <[u8; 32]>::try_from(hello.instance.as_slice())
        .map_err(|_| "wanted an instance key of 32 bytes".to_owned())?;
    Ok((client, instance))
}
