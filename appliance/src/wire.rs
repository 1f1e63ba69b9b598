//! The TLS connection of a link once it has been greeted: what has come is read, decrypted and handed over at once; what is
//! sent leaves in as few writes as the socket takes.
//!
//! ```text
//! socket -- one read --> Batch -- decrypted --> plain bytes, piece by piece         Outbox -- encrypted --> socket
//! ```
//! The buffers belong to the thread and not to the link, so that an idle link costs none of them.
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::ServerConnection;
use spec::wipe::wipe;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

use crate::outbox::Outbox;

/// Encrypted bytes read at once: the small requests of some seventy callers. It bounds how long a link keeps its thread.
pub(crate) const BATCH_BYTES: usize = 16 << 10;
/// Plain bytes handed over, and encrypted, at once.
const PIECE_BYTES: usize = 64 << 10;
/// Buffers that a thread keeps for its next reads.
const SPARE_MAX: usize = 2;

/// A connection that has been shaken hands on.
pub(crate) struct Wire {
    socket: TcpStream,
    tls: ServerConnection,
    /// Whether the peer has said goodbye, by TLS or by the end of the stream.
    ended: bool,
}

struct Buffers {
    cipher: Vec<u8>,
    plain: Zeroizing<Vec<u8>>,
}

thread_local!(static SPARE: RefCell<Vec<Buffers>> = const { RefCell::new(Vec::new()) });

/// What one read has brought, still encrypted; its buffers go back to the thread.
pub(crate) struct Batch {
    buffers: Option<Buffers>,
    bytes: usize,
}

impl Batch {
    /// One with nothing in it: opening it gives out what had been decrypted before.
    pub(crate) fn empty() -> Batch {
        let spare = SPARE.with(|spare| spare.borrow_mut().pop());
        let new = || Buffers { cipher: vec![0; BATCH_BYTES], plain: Zeroizing::new(vec![0; PIECE_BYTES]) };
        Batch { buffers: Some(spare.unwrap_or_else(new)), bytes: 0 }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let Some(buffers) = self.buffers.take() else { return };
        // A thread that ends keeps none.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_MAX {
                spare.push(buffers);
            }
        });
    }
}

impl Wire {
    /// Takes over a connection between two records.
    pub(crate) fn new(stream: TlsStream<TcpStream>) -> Self {
        let (socket, mut tls) = stream.into_inner();
        // The bounds on what waits are the link's (HA 4.5).
        tls.set_buffer_limit(None);
        Self { socket, tls, ended: false }
    }

    /// Whether the peer will send no more.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Waits until something has come, and reads once. Nothing is lost when it is dropped before.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) async fn read(&mut self) -> io::Result<Batch> {
        poll_fn(|context| self.poll_read(context)).await
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Batch>> {
        let mut batch = Batch::empty();
        let Some(buffers) = batch.buffers.as_mut() else { return Poll::Pending };
        let mut room = ReadBuf::new(&mut buffers.cipher);
        ready!(Pin::new(&mut self.socket).poll_read(context, &mut room))?;
        batch.bytes = room.filled().len();
        self.ended |= batch.bytes == 0;
        Poll::Ready(Ok(batch))
    }

    /// Decrypts what was read and gives it out piece by piece, wiping it behind.
    ///
    /// # Errors
    /// When it is no TLS, and that of `take`.
    pub(crate) fn open(
        &mut self,
        mut batch: Batch,
        mut take: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        let bytes = batch.bytes;
        let Some(buffers) = batch.buffers.as_mut() else { return Ok(()) };
        let mut cipher = buffers.cipher.get(..bytes).unwrap_or_default();
        loop {
            self.give_out(&mut buffers.plain, &mut take)?;
            // After a goodbye rustls takes nothing more.
            if cipher.is_empty() || self.ended {
                return Ok(());
            }
            let taken = self.tls.read_tls(&mut cipher).map_err(|error| broken(&error))?;
            let state = self.tls.process_new_packets().map_err(|error| broken(&error))?;
            self.ended |= taken == 0 || state.peer_has_closed();
            if self.ended {
                return self.give_out(&mut buffers.plain, &mut take);
            }
        }
    }

    fn give_out(
        &mut self,
        plain: &mut [u8],
        take: &mut impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        loop {
            let count = match self.tls.reader().read(plain) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::UnexpectedEof) => {
                    return Ok(());
                }
                Err(error) => return Err(broken(&error)),
            };
            let piece = plain.get_mut(..count).unwrap_or_default();
            let taken = take(piece);
            wipe(piece);
            taken?;
        }
    }

    /// Encrypts and writes what the socket takes now; whether all of it has been taken.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn send(&mut self, out: &mut Outbox) -> io::Result<bool> {
        loop {
            if !self.write()? {
                return Ok(false);
            }
            let Some(piece) = out.next(PIECE_BYTES) else { return Ok(true) };
            self.tls.writer().write_all(piece)?;
        }
    }

    /// Writes what is encrypted; whether the socket took all of it.
    fn write(&mut self) -> io::Result<bool> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Socket(&self.socket)) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Waits until the socket takes more.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }

    /// Says goodbye and ends our direction.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        self.tls.send_close_notify();
        while !self.write()? {
            self.socket.writable().await?;
        }
        self.socket.shutdown().await
    }
}

fn broken(error: &dyn std::error::Error) -> String {
    format!("the connection broke: {error}")
}

/// The socket as rustls writes to it; it never waits.
struct Socket<'a>(&'a TcpStream);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
