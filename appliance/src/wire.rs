//! The TLS connection of a link once it has been greeted: what has come is read, decrypted and handed over at once; what is
//! sent leaves in as few writes as the socket takes. Whoever has something to send writes it himself, the link's task or a
//! thread that has finished long work; the task alone reads and waits.
//!
//! ```text
//! socket -- Incoming, one read --> Batch -- Wire: decrypted --> plain bytes     Outbox -- Wire: encrypted --> socket
//! ```
//! The buffers belong to the thread and not to the link, so that an idle link costs none of them.
use std::cell::RefCell;
use std::io::{self, BufRead, ErrorKind, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::server::TlsStream;

use crate::outbox::Outbox;

/// Encrypted bytes read at once: the small requests of some seventy callers. It bounds how long a link keeps its thread.
pub(crate) const BATCH_BYTES: usize = 16 << 10;
/// Plain bytes encrypted at once.
const PIECE_BYTES: usize = 64 << 10;
/// Buffers that a thread keeps for its next reads.
const SPARE_MAX: usize = 2;

/// What comes in over a connection that has been shaken hands on.
pub(crate) struct Incoming(OwnedReadHalf);

/// The TLS of such a connection, and what goes out.
pub(crate) struct Wire {
    socket: OwnedWriteHalf,
    tls: ServerConnection,
    /// Whether the peer has said goodbye, by TLS or by the end of the stream.
    ended: bool,
}

thread_local!(static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) });

/// What one read has brought, still encrypted; its buffer goes back to the thread.
pub(crate) struct Batch {
    cipher: Vec<u8>,
    bytes: usize,
}

impl Batch {
    /// One with nothing in it yet.
    fn empty() -> Batch {
        let spare = SPARE.with(|spare| spare.borrow_mut().pop());
        Batch { cipher: spare.unwrap_or_else(|| vec![0; BATCH_BYTES]), bytes: 0 }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let cipher = std::mem::take(&mut self.cipher);
        // A thread that ends keeps none.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_MAX {
                spare.push(cipher);
            }
        });
    }
}

impl Incoming {
    /// Reads once, if anything has come; else the task is woken when it has. Nothing is lost when nobody asks again.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Batch>> {
        let mut batch = Batch::empty();
        let mut room = ReadBuf::new(&mut batch.cipher);
        ready!(Pin::new(&mut self.0).poll_read(context, &mut room))?;
        batch.bytes = room.filled().len();
        Poll::Ready(Ok(batch))
    }

    /// Reads what has come already, without having waited for it: the socket is asked, not the runtime. `None` when nothing
    /// has come.
    pub(crate) fn read_at_once(&mut self) -> Option<io::Result<Batch>> {
        let mut batch = Batch::empty();
        match recv(self.0.as_ref(), batch.cipher.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok((bytes, _)) => {
                batch.bytes = bytes;
                Some(Ok(batch))
            }
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(error) => Some(Err(error.into())),
        }
    }
}

impl Wire {
    /// Takes over a connection between two records.
    pub(crate) fn new(stream: TlsStream<TcpStream>) -> (Self, Incoming) {
        let (socket, mut tls) = stream.into_inner();
        // The bounds on what waits are the link's (HA 4.5).
        tls.set_buffer_limit(None);
        let (incoming, socket) = socket.into_split();
        (Self { socket, tls, ended: false }, Incoming(incoming))
    }

    /// Whether the peer will send no more.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Decrypts what was read and gives it out piece by piece.
    ///
    /// # Errors
    /// When it is no TLS, and that of `take`.
    pub(crate) fn open(
        &mut self,
        batch: &Batch,
        mut take: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut cipher = batch.cipher.get(..batch.bytes).unwrap_or_default();
        self.ended |= cipher.is_empty();
        // After a goodbye rustls takes nothing more.
        while !cipher.is_empty() && !self.ended {
            let taken = self.tls.read_tls(&mut cipher).map_err(|error| broken(&error))?;
            let state = self.tls.process_new_packets().map_err(|error| broken(&error))?;
            self.ended |= taken == 0 || state.peer_has_closed();
            if state.plaintext_bytes_to_read() > 0 {
                self.give_out(&mut take)?;
            }
        }
        Ok(())
    }

    /// Gives out what has been decrypted.
    ///
    /// # Errors
    /// When it is no TLS, and that of `take`.
    pub(crate) fn give_out(
        &mut self,
        mut take: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        loop {
            let mut reader = self.tls.reader();
            let count = match reader.fill_buf() {
                Ok([]) => return Ok(()),
                Ok(piece) => {
                    take(piece)?;
                    piece.len()
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::UnexpectedEof) => {
                    return Ok(());
                }
                Err(error) => return Err(broken(&error)),
            };
            reader.consume(count);
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

    /// Whether the socket takes more; else the task is woken when it does.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.as_ref().poll_write_ready(context)
    }

    /// Says goodbye, writes what is left and ends our direction.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Only the first one counts.
        self.tls.send_close_notify();
        while !self.write()? {
            ready!(self.poll_writable(context))?;
        }
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

/// Whether it is worth the question what has come while a link was answering. On a processor that client and appliance share, the
/// client goes on as soon as it has its answer, and its next request is there before the appliance looks for it: to wait for it as for
/// others would cost a system call and a round of the runtime. On processors of their own that is seldom so.
#[derive(Default)]
pub(crate) struct Hunch {
    missed: u32,
    turns: u32,
}

impl Hunch {
    /// After so many questions for nothing it is put seldom.
    const MISSES_MAX: u32 = 4;
    /// How seldom: once in so many turns.
    const SELDOM: u32 = 32;

    /// Whether to ask after this turn.
    pub(crate) fn is_worth_it(&mut self) -> bool {
        self.turns = self.turns.wrapping_add(1);
        self.missed < Self::MISSES_MAX || self.turns.is_multiple_of(Self::SELDOM)
    }

    /// What came of the question.
    pub(crate) fn learn(&mut self, has_come: bool) {
        self.missed = if has_come { 0 } else { self.missed.saturating_add(1) };
    }
}

fn broken(error: &dyn std::error::Error) -> String {
    format!("the connection broke: {error}")
}

/// The socket as rustls writes to it; it never waits.
struct Socket<'a>(&'a OwnedWriteHalf);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match pieces {
            [one] => self.0.try_write(one),
            several => self.0.try_write_vectored(several),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn what_seldom_comes_at_once_is_seldom_asked_for() {
        let mut hunch = Hunch::default();
        let asked = |hunch: &mut Hunch, turns: u32, has_come: bool| {
            let one = |_: &u32| {
                let asks = hunch.is_worth_it();
                if asks {
                    hunch.learn(has_come);
                }
                asks
            };
            (0..turns).filter(one).count()
        };
        assert_eq!(asked(&mut hunch, 100, true), 100);
        assert!((4..=8).contains(&asked(&mut hunch, 100, false)));
        assert_eq!(asked(&mut hunch, 3_200, false), 100);
        // One time that it comes is enough.
        assert!(asked(&mut hunch, 100, true) >= 68);
    }

    #[tokio::test]
    async fn what_has_come_is_read_at_once_and_what_has_not_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        let mut incoming = Incoming(socket.into_split().0);
        assert!(incoming.read_at_once().is_none());
        peer.write_all(b"first").await.unwrap();
        let first = arrived(&mut incoming).await;
        assert_eq!(&first.cipher[..first.bytes], b"first");
        assert!(incoming.read_at_once().is_none());
        // What is not asked for at once is heard of as ever, though more was read than the runtime knows.
        peer.write_all(b"second").await.unwrap();
        let second = poll_fn(|context| incoming.poll_read(context)).await.unwrap();
        assert_eq!(&second.cipher[..second.bytes], b"second");
        drop(peer);
        // The end of the stream is a read of nothing.
        assert_eq!(arrived(&mut incoming).await.bytes, 0);
    }

    /// What is on its way over the loopback, by questions alone.
    async fn arrived(incoming: &mut Incoming) -> Batch {
        for _ in 0..10_000 {
            if let Some(read) = incoming.read_at_once() {
                return read.unwrap();
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        panic!("nothing has come");
    }
}
