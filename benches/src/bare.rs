//! One TLS connection over the loopback and nothing around it: data there and as much back, encrypted by the configuration that
//! members and clients use. It is the limit for calls that carry much data, where everything else of them costs nothing.

use std::io::{self, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use ::tests::p11::Failed;
use ntls::certificate::{Identity, Wanted, self_signed};
use ntls::platform::System;
use ntls::tls::{ClientRegistry, Refusal, RegisteredClient, ServerTrust, client_config, server_config};
use rustls::{ClientConfig, ClientConnection, ConnectionCommon, ServerConfig, ServerConnection};
use rustls_pki_types::ServerName;
use spec::platform::Platform;

use crate::work::{Contestant, Work, Worker, prove};

/// What goes in one piece, there and back: as much as one call of the others.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes that are read from the socket, and that are encrypted, at once.
const ROOM_BYTES: usize = 64 << 10;

/// Both ends of the connections to come.
pub struct Bare {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

/// Knows nobody and takes everybody: who it is was decided when the connection was made here.
struct Everybody;

impl ClientRegistry for Everybody {
    fn accept(&self, _: &[u8]) -> Result<RegisteredClient, Refusal> {
        Ok(RegisteredClient { name: "bare".into(), id: [0; 32] })
    }
}

impl Bare {
    /// With a new certificate for both ends.
    ///
    /// # Errors
    /// When none can be made.
    pub fn new() -> io::Result<Self> {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let hosts = ["127.0.0.1".to_owned()];
        let now_ms = u64::try_from(now_ms).unwrap_or(u64::MAX);
        let made = self_signed(&Wanted { name: "bare", hosts: &hosts, now_ms, days: 2 });
        let made = made.map_err(|error| io::Error::other(error.to_string()))?;
        let pem = made.certificate_pem.as_bytes();
        let identity = Identity::from_pem(pem, made.key_pem.as_bytes());
        let identity = identity.map_err(|error| io::Error::other(error.to_string()))?;
        let trust =
            ServerTrust::from_pem(pem, "bare").map_err(|error| io::Error::other(error.to_string()))?;
        let platform: Arc<dyn Platform> = Arc::new(System);
        let client = client_config(&platform, &identity, &Arc::new(trust)).map_err(io::Error::other)?;
        let server = server_config(&identity, Arc::new(Everybody)).map_err(io::Error::other)?;
        Ok(Self { client: Arc::new(client), server: Arc::new(server) })
    }

    /// A new connection, whose other end is a thread that sends back what it gets until we are gone.
    fn connect(&self) -> io::Result<Pipe<ClientConnection>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let ours = TcpStream::connect(listener.local_addr()?)?;
        let (theirs, _) = listener.accept()?;
        let server = ServerConnection::new(self.server.clone()).map_err(io::Error::other)?;
        thread::spawn(move || Pipe::new(server, theirs).and_then(echo));
        let name = ServerName::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST));
        let client = ClientConnection::new(self.client.clone(), name).map_err(io::Error::other)?;
        Pipe::new(client, ours)
    }
}

fn echo(mut pipe: Pipe<ServerConnection>) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        pipe.receive(&mut piece)?;
        pipe.send(&piece)?;
    }
}

/// One end of a connection.
struct Pipe<T> {
    tls: T,
    input: BufReader<TcpStream>,
}

impl<T, Side> Pipe<T>
where
    T: Deref<Target = ConnectionCommon<Side>> + DerefMut,
    Side: rustls::SideData,
{
    fn new(mut tls: T, socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        // What is written is flushed piece by piece.
        tls.set_buffer_limit(None);
        Ok(Self { tls, input: BufReader::with_capacity(ROOM_BYTES, socket) })
    }

    fn send(&mut self, data: &[u8]) -> io::Result<()> {
        while self.tls.is_handshaking() {
            self.flush()?;
            if self.tls.is_handshaking() {
                self.read()?;
            }
        }
        for piece in data.chunks(ROOM_BYTES) {
            self.tls.writer().write_all(piece)?;
            self.flush()?;
        }
        Ok(())
    }

    fn receive(&mut self, mut room: &mut [u8]) -> io::Result<()> {
        while !room.is_empty() {
            match self.tls.reader().read(room) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => room = room.get_mut(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.flush()?;
                    self.read()?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.input.get_ref())?;
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<()> {
        match self.tls.read_tls(&mut self.input)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => self.tls.process_new_packets().map(drop).map_err(io::Error::other),
        }
    }
}

impl Contestant for Bare {
    fn worker(&self, work: Work, _number: usize) -> Result<Option<Worker<'_>>, Failed> {
        let Some(pieces) = work.pieces() else { return Ok(None) };
        let failed = |_| Failed { function: "TLS", rv: cryptoki_sys::CKR_DEVICE_ERROR };
        let mut pipe = self.connect().map_err(failed)?;
        let data: Vec<u8> = (0..PIECE_BYTES).map(|at| at.to_le_bytes()[at % 3]).collect();
        let mut back = vec![0; PIECE_BYTES];
        let mut exchange = move |pieces: usize| -> io::Result<bool> {
            for _ in 0..pieces {
                pipe.send(&data)?;
                pipe.receive(&mut back)?;
            }
            Ok(back.first() == data.first() && back.last() == data.last())
        };
        prove(exchange(1).map_err(failed)?, "TLS")?;
        Ok(Some(Box::new(move || prove(exchange(pieces).map_err(failed)?, "TLS"))))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_comes_back_and_work_without_much_data_is_not_offered() {
        let bare = Bare::new().unwrap();
        let mut pipe = bare.connect().unwrap();
        let data: Vec<u8> = (0..PIECE_BYTES).map(|at| at.to_le_bytes()[at % 2]).collect();
        let mut back = vec![0; PIECE_BYTES];
        for _ in 0..2 {
            pipe.send(&data).unwrap();
            pipe.receive(&mut back).unwrap();
            assert!(back == data);
        }
        let mut worker = bare.worker(Work::Cbc1m, 0).unwrap().unwrap();
        worker().unwrap();
        assert!(bare.worker(Work::P256Sign, 0).unwrap().is_none());
    }
}
