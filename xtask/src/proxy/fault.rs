//! What a proxy does to an address, and the words for it.
use std::time::Duration;

/// The shortest record of an answer that carries a reply: frame length and kind, the reply's header, and what TLS adds.
pub(super) const REPLY_BYTES_MIN: usize = 5 + 48 + 17;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the appliance.
    Up,
    /// To the client.
    Down,
}

/// What is wrong with an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// How much later everything arrives, each way.
    pub delay: Duration,
    /// How many records of a hundred meet a loss: TCP sends them again 200 ms later, and what is behind waits.
    pub loss_percent: u32,
    /// Nothing goes to the appliance.
    pub hold_up: bool,
    /// Nothing goes to the client.
    pub hold_down: bool,
    /// One byte every 5 ms, each way.
    pub trickle: bool,
    /// Connections are reset, new ones at once.
    pub refuse: bool,
}

impl Fault {
    /// Whether nothing goes this way.
    pub fn holds(&self, direction: Direction) -> bool {
        match direction {
            Direction::Up => self.hold_up,
            Direction::Down => self.hold_down,
        }
    }

    /// Reads the words of `lab fault`: `clear`, or any of `delay=5ms`, `loss=5%`, `blackhole`, `oneway=up`, `oneway=down`
    /// (`oneway` alone is down), `trickle`, `refuse`.
    ///
    /// # Errors
    /// When a word is none of these.
    pub fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut fault = Self::default();
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match (name, value) {
                ("clear", "") => fault = Self::default(),
                ("delay", _) => fault.delay = Duration::from_millis(number(value, "ms")?),
                ("loss", _) => {
                    let percent = number(value, "%")?;
                    fault.loss_percent = u32::try_from(percent.min(100)).unwrap_or(100);
                }
                ("blackhole", "") => (fault.hold_up, fault.hold_down) = (true, true),
                ("oneway", "up") => fault.hold_up = true,
                ("oneway", "down" | "") => fault.hold_down = true,
                ("trickle", "") => fault.trickle = true,
                ("refuse", "") => fault.refuse = true,
                _ => {
                    return Err(format!(
                        "wanted clear, delay=Nms, loss=N%, blackhole, oneway=up|down, trickle or refuse, found {word:?}"
                    ));
                }
            }
        }
        Ok(fault)
    }
}

/// Where a record is cut off, before the connection is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// None of it gets through.
    Before,
    /// Half of it does.
    Middle,
    /// So many bytes of it do.
    At(usize),
    /// All of it does.
    After,
}

/// A cut at a chosen record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// The way of the records that count.
    pub direction: Direction,
    /// Shorter records do not count: pings, probes.
    pub bytes_min: usize,
    /// How many that count are let through first.
    pub skip: u64,
    /// Whether the record itself gets through and the answer to it is cut.
    pub on_reply: bool,
    /// Where.
    pub cut: Cut,
}

impl Trigger {
    /// Reads the words of `lab fault arm`: `request` (cut before it leaves), `reply` (before the answer), `half-reply`,
    /// or `up`/`down` with `before`, `middle`, `after` or `at=BYTES`; then any of `min=BYTES`, `skip=COUNT`.
    ///
    /// # Errors
    /// When a word is none of these.
    pub fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut trigger =
            Self { direction: Direction::Up, bytes_min: 0, skip: 0, on_reply: false, cut: Cut::Before };
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match (name, value) {
                ("request" | "before", "") => trigger.cut = Cut::Before,
                ("reply", "") => (trigger.on_reply, trigger.cut) = (true, Cut::Before),
                ("half-reply", "") => (trigger.on_reply, trigger.cut) = (true, Cut::Middle),
                ("up", "") => trigger.direction = Direction::Up,
                ("down", "") => trigger.direction = Direction::Down,
                ("middle", "") => trigger.cut = Cut::Middle,
                ("after", "") => trigger.cut = Cut::After,
                ("at", _) => trigger.cut = Cut::At(usize::try_from(number(value, "")?).unwrap_or(usize::MAX)),
                ("min", _) => trigger.bytes_min = usize::try_from(number(value, "")?).unwrap_or(usize::MAX),
                ("skip", _) => trigger.skip = number(value, "")?,
                _ => {
                    return Err(format!(
                        "wanted request, reply, half-reply, up, down, before, middle, after, at=N, min=N or skip=N, \
                         found {word:?}"
                    ));
                }
            }
        }
        Ok(trigger)
    }
}

fn number(text: &str, unit: &str) -> Result<u64, String> {
    let digits = text.strip_suffix(unit).unwrap_or(text);
    digits.parse().map_err(|_| format!("wanted a number{unit}, found {text:?}"))
}
