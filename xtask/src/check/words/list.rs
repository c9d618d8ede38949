//! The retired words, the way in which each matches, and its replacement.

/// A retired word.
pub(super) struct Word {
    /// The name in the baseline.
    pub(super) name: &'static str,
    pub(super) instead: &'static str,
    /// Sequences of words, matched anywhere. `|` separates the forms of a word.
    pub(super) words: &'static [&'static str],
    /// Identifiers, matched in code. `*` stands for any beginning or end.
    pub(super) names: &'static [&'static str],
    /// The places where the names count, as beginnings of paths.
    pub(super) under: &'static [&'static str],
}

/// The directories of the loop, its parts, and its proofs.
const LOOP: &[&str] = &["aio-", "proofs/"];
const CONTEXT: &[&str] = &["aio-context/", "proofs/reference/", "proofs/simulation/"];
const REGISTRY: &[&str] = &["aio-context/", "aio-handlers/", "proofs/reference/"];
const BLOCKD: &[&str] = &["examples/blockd/"];
const BOARD: &[&str] = &["aio-notify/src/board", "aio-context/src/board"];

const fn word(name: &'static str, instead: &'static str, words: &'static [&'static str]) -> Word {
    Word {
        name,
        instead,
        words,
        names: &[],
        under: &[],
    }
}

impl Word {
    const fn names(mut self, names: &'static [&'static str], under: &'static [&'static str]) -> Self {
        (self.names, self.under) = (names, under);
        self
    }
}

/// A doc comment that opens with a relative clause. Its subject is missing: `What a wait found` is `The events of a wait`. The module
/// `openings` finds them.
pub(super) const OPENING: Word = word("What ..", "the thing: a noun, or a verb such as \"Returns\"", &[]);
/// The first words of such a clause.
pub(super) const OPENINGS: [&str; 4] = ["What", "Who", "Whatever", "Whose"];

#[rustfmt::skip]
pub(super) const WORDS: &[Word] = &[
    word("look", "check (descriptors, without waiting)", &["a|the|each|every|last|next|one|first|no look", "owed look"])
        .names(&["look", "looks", "looked", "look_*", "*_look", "*_looks", "*_looked", "Look*", "LOOK_*"], LOOP),
    word("glance", "pre-sleep spin", &["glance|glances|glanced|glancing"]),
    word("ask", "poll", &["ask|asks|asked|asking each|every|its|all|hot|polled handler|handlers|source|sources",
                          "last question|questions", "last answer|answers"])
        .names(&["ask", "asks", "asked", "ask_again", "ask_busy_ones", "ask_in_turn", "ask_noted", "ask_once", "ask_unkicked", "must_ask",
                 "*_asked", "Ask", "Asked"], CONTEXT),
    word("owed a look", "recheck pending", &["unasked", "owe|owes|owed|owing a|one look", "owed recheck"]),
    word("newcomer", "pending begin", &["newcomer|newcomers"]),
    word("greet", "begin", &["greet|greets|greeted|greeting"]),
    word("hot", "promoted", &["hot handler|handlers|set|source|sources|one|ones|queue|queues|board|boards"])
        .names(&["hot", "is_hot", "was_hot", "Hot"], &["aio-", "proofs/"]),
    word("cold", "demoted", &["cold handler|handlers|source|sources|one|ones|queue|queues|board|boards"])
        .names(&["cold", "is_cold", "was_cold"], CONTEXT),
    word("cool down", "demote", &["cool|cools|cooled|cooling|cooldown"]),
    word("warm up", "promote", &["warm|warms|warmed|warming a|the|its|idle handler|source|board"])
        .names(&["warm_up", "warms_up"], LOOP),
    word("by_type", "typed arrays", &[]).names(&["by_type"], LOOP),
    word("Line", "run queue", &[]).names(&["Line"], &["aio-notify/", "aio-context/src/"]),
    word("Run", "due item", &[]).names(&["Run"], &["aio-notify/", "aio-context/src/"]),
    word("Place", "slot", &[]).names(&["Place"], &["aio-notify/", "aio-context/src/", "aio-timers/"]),
    word("note", "record, Recorded", &["noted"]).names(&["note", "Note", "note_*", "*_note"], LOOP),
    word("turn away", "reject", &["turn|turns|turned|turning away"]),
    word("park", "mask (silence in the backend)", &["parked|parks handler|handlers|registration|registrations"])
        .names(&["park", "parked", "parks", "park_perhaps", "is_parked", "was_parked", "Parked"], REGISTRY),
    word("hold", "exclude (while it runs)", &[]).names(&["hold", "Hold", "Held"], REGISTRY),
    word("farewell", "invalidation", &["farewell|farewells"]),
    word("dismiss", "finish removal", &["dismiss|dismisses|dismissed|dismissal"]),
    word("say, told", "notify, notified, report", &[]).names(&["say", "say_*", "told", "is_told", "was_told", "Told", "AsTold", "Told*"], LOOP),
    word("deaf", "wake-up lost, without events", &["deaf"]),
    word("broken", "invalidated", &[]).names(&["broken", "Broken"], LOOP),
    word("oddities", "anomalies", &["oddity|oddities"]),
    word("rendezvous", "wait (for other threads)", &["rendezvous"]),
    word("rung", "level", &["upper|lower|either|both rung|rungs"])
        .names(&["rung", "rungs", "rung_*", "Rung", "RUNGS", "RUNGS_*"], &["aio-backend-ladder/", "aio-pollctl/", "proofs/"]),
    word("stranded", "orphaned", &["stranded"]),
    word("suspect", "to verify", &[]).names(&["suspect", "suspects", "is_suspect"], &["aio-backend"]),
    word("side", "unpollable files", &[]).names(&["side", "Side", "side_*", "*_side"], &["aio-backend-epoll/"]),
    word("parcel", "message", &["parcel|parcels"]),
    word("Taken", "dequeued", &[]).names(&["Taken"], LOOP),
    word("Share", "reference", &[]).names(&["Share", "exchange_share"], LOOP),
    word("attend", "disarm", &["attend|attends|attended|attending"]),
    word("rest", "arm", &["loop rests|rested|resting", "loop that rests|rested", "who rests"])
        .names(&["rest", "rests", "rested", "end_rest", "serve_at_rest", "EndAnyRest", "RestGoesOn", "RestWithoutFence"], BOARD),
    word("turn", "epoch", &[]).names(&["turn", "turns", "TURN"], BOARD),
    word("roof", "sentinel", &["roof|roofs"]),
    word("nobody", "none; name the thing: no handler, no thread", &["nobody"]),
    word("somebody", "the thing that acts: a thread, the caller, the handler that ..", &["somebody|anybody|everybody|whoever|whom"]),
    word("ticket", "sequence", &["ticket|tickets"]),
    word("struck", "tombstone", &["struck"]),
    word("author", "generator", &[]).names(&["author", "Author"], &["proofs/"]),
    word("acts", "operations", &[]).names(&["acts"], &["proofs/"]),
    word("deed", "action", &["deed|deeds"]),
    word("later", "deferred", &[]).names(&["later", "Later"], &["proofs/simulation/"]),
    word("visitor", "churn", &["visitor|visitors"]),
    word("doors", "wake-ups", &[]).names(&["doors", "Doors"], &["proofs/"]),
    word("patience", "timeout", &["patience"]),
    word("nonsense", "malformed", &["nonsense"]),
    word("Link", "connection, or the virtio specification's term", &[]).names(&["Link"], BLOCKD),
    word("Guard", "what it guards, or the virtio specification's term", &[]).names(&["Guard"], BLOCKD),
    word("Doorbell", "EventNotifier (eventfd), or wake-up eventfd", &[])
        .names(&["Doorbell"], &["aio-notify/", "aio-context/src/builder.rs", "examples/blockd/"]),
];
