//! Names: the addresses of a server, looked up beside whoever drives the links, since the system's resolver may block for
//! tens of seconds when a name server does not answer. One lookup per server at a time; each attempt to connect asks anew,
//! so a server that has moved is found.
use std::sync::Arc;

use spec::platform::{Lock, Platform, SocketAddr};

use crate::channel::ServerAddress;
use crate::reason;

/// The addresses, or a sentence for the operator.
type Found = Result<Vec<SocketAddr>, String>;

#[derive(Default)]
enum State {
    #[default]
    Idle,
    Asked,
    Found(Found),
}

/// The lookups of one server.
#[derive(Default)]
pub(crate) struct Names(Arc<Lock<State>>);

impl Names {
    /// The addresses for one attempt; none while they are being looked up, after which `tell` is called. Where no thread
    /// may be made the calling one asks, which takes as long as the system's resolver does.
    pub(crate) fn take(
        &self,
        platform: &Arc<dyn Platform>,
        server: &ServerAddress,
        may_spawn: bool,
        tell: impl FnOnce() + Send + 'static,
    ) -> Option<Found> {
        if let Ok(address) = server.to_string().parse::<SocketAddr>() {
            return Some(Ok(vec![address]));
        }
        if let Err(reason) = server.name() {
            return Some(Err(reason));
        }
        {
            let mut state = self.0.lock();
            match std::mem::take(&mut *state) {
                State::Found(found) => return Some(found),
                State::Asked => {
                    *state = State::Asked;
                    return None;
                }
                State::Idle if may_spawn => *state = State::Asked,
                State::Idle => {}
            }
        }
        let (state, asked, by) = (self.0.clone(), server.clone(), platform.clone());
        let lookup = move || {
            let found = look_up(&*by, &asked);
            *state.lock() = State::Found(found);
            tell();
        };
        if !may_spawn {
            return Some(look_up(&**platform, server));
        }
        // Nobody waits for its end: what it holds is its own. The calling thread has its deadlines and does not ask in its
        // place (HA 4.2).
        let refused = platform.spawn("hatoki-resolve", Box::new(lookup)).err()?;
        *self.0.lock() = State::Idle;
        Some(Err(format!(
            "wanted a thread to look up the name of {server}, found: {refused}; raise the limit of threads, or name the \
             server by its address"
        )))
    }
}

/// Asks the system's resolver.
pub(crate) fn look_up(platform: &dyn Platform, server: &ServerAddress) -> Found {
    server.name()?;
    platform.resolve(&server.host, server.port).map_err(|error| reason::connect(server, &error))
}
