//! The NAT against a naive one: ordered maps, linear searches, no wheel, no hashing. IPv4; sharing of
//! ports, hairpins and the families have tests of their own.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const MAPPINGS_MAX: usize = 10;
const PER_HOST_MAX: usize = 4;
const REMOTES: [&str; 3] = ["203.0.113.1:80", "203.0.113.1:81", "203.0.113.2:80"];

type Inside = (Transport, Realm, SocketAddrV4);

/// The model's session: the rules of a connection, written down once more.
#[derive(Clone, Copy, Debug)]
struct Call {
    syn_in: bool,
    syn_out: bool,
    fin_in: bool,
    fin_out: bool,
    reset: bool,
    active: Instant,
    /// The inside has taken part at some time.
    joined: bool,
}

impl Call {
    fn open(&self) -> bool {
        self.syn_in && self.syn_out && !self.reset && !(self.fin_in && self.fin_out)
    }

    fn ended(&self) -> bool {
        self.reset || self.fin_in && self.fin_out
    }

    fn deadline(&self) -> Instant {
        self.active + Duration::from_secs(if self.open() { 7_440 } else { 240 })
    }

    fn packet(&mut self, now: Instant, outbound: bool, flags: u8) {
        let pure_syn = flags & (SYN | ACK | RST) == SYN;
        if flags & RST != 0 {
            if self.open() {
                (self.reset, self.active) = (true, now);
            }
        } else if self.ended() {
            if pure_syn {
                let fresh = Self { syn_in: !outbound, syn_out: outbound, ..NEW };
                let active = if outbound { now } else { self.active };
                *self = Self { active, joined: self.joined, ..fresh };
            } else if self.reset && outbound {
                *self = Self { syn_in: true, syn_out: true, active: now, joined: true, ..NEW };
            }
        } else if self.open() {
            if flags & FIN != 0 {
                if outbound {
                    self.fin_out = true;
                } else {
                    self.fin_in = true;
                }
            }
            self.active = now;
        } else if flags & SYN != 0 {
            let answers = if outbound { self.syn_in } else { self.syn_out };
            if answers {
                (self.syn_in, self.syn_out, self.joined) = (true, true, true);
                self.active = now;
            } else if outbound && pure_syn {
                self.active = now;
            }
        }
    }
}

const NEW: Call = Call {
    syn_in: false,
    syn_out: false,
    fin_in: false,
    fin_out: false,
    reset: false,
    active: Instant::ZERO,
    joined: false,
};

#[derive(Debug)]
struct Modelled {
    outside: SocketAddrV4,
    /// Its end, unless a packet or a lease comes; of TCP the calls count.
    until: Instant,
    /// The end of a lease.
    lease: Option<Instant>,
    calls: BTreeMap<usize, Call>,
    /// Whom the filter lets in, and when the inside last sent there.
    permits: BTreeMap<usize, Instant>,
}

/// What a filter looks at: the remote end, or the first one with the same address.
fn filter_key(filtering: Dependence, transport: Transport, remote: usize) -> usize {
    let address = |remote: usize| *end(REMOTES[remote]).ip();
    if filtering == Dependence::AddressAndPort && transport != Transport::Icmp {
        return remote;
    }
    (0..=remote).find(|&other| address(other) == address(remote)).unwrap_or(remote)
}

/// A mapping lives so long by itself after a packet from inside.
fn idle_time(transport: Transport) -> Duration {
    Duration::from_secs(if transport == Transport::Icmp { 60 } else { 300 })
}

fn permit_lifetime(transport: Transport) -> Duration {
    Duration::from_secs(match transport {
        Transport::Tcp => 7_440,
        Transport::Icmp => 60,
        Transport::Udp | Transport::UdpLite | Transport::Other(_) => 300,
    })
}

#[derive(Debug, Default)]
struct Model {
    mappings: BTreeMap<Inside, Modelled>,
    resting: Vec<(Instant, Transport, SocketAddrV4)>,
}

impl Model {
    /// Ends what is due.
    fn expire(&mut self, now: Instant) {
        let resting = &mut self.resting;
        self.mappings.retain(|(transport, _, _), mapping| {
            let joined = mapping.calls.values().filter(|call| call.joined);
            let calls = joined.map(Call::deadline).max().unwrap_or(Instant::ZERO);
            let deadline = match (transport, mapping.lease) {
                // The lease is over, but not the connections.
                (Transport::Tcp, Some(lease)) => lease.max(calls),
                (Transport::Tcp, None) => calls,
                _ => mapping.until,
            };
            // Without connections, packets prolong the lease itself.
            if *transport == Transport::Tcp {
                mapping.lease = mapping.lease.filter(|lease| *lease > now);
            }
            if deadline <= now {
                resting.push((now + Duration::from_secs(120), *transport, mapping.outside));
                return false;
            }
            mapping.calls.retain(|_, call| call.deadline() > now);
            mapping.permits.retain(|_, active| *active + permit_lifetime(*transport) > now);
            true
        });
        self.resting.retain(|(until, _, _)| *until > now);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Out { inside: Inside, remote: usize, flags: u8 },
    In { inside: Inside, remote: usize, flags: u8 },
    Open { inside: Inside, remote: usize },
    Close { inside: Inside, remote: usize },
    Guess { transport: Transport, port: u16 },
    Lease { inside: Inside, seconds: u64 },
    GiveBack { inside: Inside },
    Wait(u64),
}

fn inside() -> impl Strategy<Value = Inside> {
    let transport =
        prop::sample::select(vec![Transport::Tcp, Transport::Tcp, Transport::Udp, Transport::Icmp]);
    (transport, 0u16..2, 1u8..3, 1u16..4).prop_map(|(transport, realm, host, port)| {
        (transport, Realm(realm), SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, host), port))
    })
}

fn step() -> impl Strategy<Value = Step> {
    let flags = || prop::sample::select(vec![SYN, SYN, SYN | ACK, ACK, FIN | ACK, FIN | ACK, RST]);
    let transports = vec![Transport::Tcp, Transport::Udp, Transport::Icmp];
    prop_oneof![
        6 => (inside(), 0usize..3, flags())
            .prop_map(|(inside, remote, flags)| Step::Out { inside, remote, flags }),
        5 => (inside(), 0usize..3, flags())
            .prop_map(|(inside, remote, flags)| Step::In { inside, remote, flags }),
        1 => (inside(), 0usize..3).prop_map(|(inside, remote)| Step::Open { inside, remote }),
        2 => (inside(), 0usize..3).prop_map(|(inside, remote)| Step::Close { inside, remote }),
        1 => (prop::sample::select(transports), 39_990u16..40_020)
            .prop_map(|(transport, port)| Step::Guess { transport, port }),
        1 => (inside(), prop::sample::select(vec![30, 120, 600, 8_000]))
            .prop_map(|(inside, seconds)| Step::Lease { inside, seconds }),
        1 => inside().prop_map(|inside| Step::GiveBack { inside }),
        // Around the lifetimes.
        3 => prop::sample::select(vec![1, 31, 59, 61, 121, 239, 241, 301, 3_000, 7_441])
            .prop_map(Step::Wait),
    ]
}

fn upper(transport: Transport, outbound: bool, flags: u8) -> Upper {
    match transport {
        Transport::Tcp => tcp(flags),
        Transport::Udp | Transport::UdpLite | Transport::Other(_) => Upper::Udp,
        Transport::Icmp if outbound => Upper::EchoRequest,
        Transport::Icmp => Upper::EchoReply,
    }
}

struct Test {
    lab: Lab,
    model: Model,
    filtering: Dependence,
}

impl Test {
    fn new(filtering: Dependence) -> Self {
        let mut config = config();
        for behaviour in [&mut config.policy.tcp, &mut config.policy.udp, &mut config.policy.icmp] {
            behaviour.filtering = filtering;
        }
        config.pool = vec!["198.51.100.4/31".parse().unwrap()];
        config.ports = 40_000..=40_011;
        config.limits = NatLimits::of_mappings(MAPPINGS_MAX as u32, PER_HOST_MAX as u32);
        config.limits.max_sessions_per_host = 1_000;
        config.limits.max_sessions = 1_000;
        Self { lab: Lab::new(&config), model: Model::default(), filtering }
    }

    /// True where the filter keeps a list of its own: TCP sessions are one already.
    fn keeps_permits(&self, transport: Transport) -> bool {
        match self.filtering {
            Dependence::EndpointIndependent => false,
            Dependence::Address => true,
            Dependence::AddressAndPort => transport != Transport::Tcp,
        }
    }

    fn out(&mut self, inside: Inside, remote: usize, flags: u8) -> Result<(), TestCaseError> {
        let (transport, realm, from) = inside;
        let now = self.lab.now;
        let upper = upper(transport, true, flags);
        let result = self.lab.out(realm, &from.to_string(), REMOTES[remote], upper);
        let known = self.model.mappings.contains_key(&inside);
        let begins = transport != Transport::Tcp || flags & (SYN | ACK | RST) == SYN;
        let permits = self.keeps_permits(transport);
        match result {
            Ok(outside) => {
                prop_assert!(known || begins);
                if !known {
                    self.check_new(&inside, outside)?;
                }
                let mapping = self.model.mappings.entry(inside).or_insert_with(|| Modelled {
                    outside,
                    until: now,
                    lease: None,
                    calls: BTreeMap::new(),
                    permits: BTreeMap::new(),
                });
                if permits {
                    mapping.permits.insert(filter_key(self.filtering, transport, remote), now);
                }
                prop_assert_eq!(mapping.outside, outside);
                mapping.until = mapping.until.max(now + idle_time(transport));
                if transport == Transport::Tcp {
                    if let Some(call) = mapping.calls.get_mut(&remote) {
                        call.packet(now, true, flags);
                    } else if begins {
                        let call = Call { syn_out: true, active: now, joined: true, ..NEW };
                        mapping.calls.insert(remote, call);
                    }
                }
            }
            Err(DropReason::NatNoSession) => prop_assert!(!known && !begins),
            Err(reason) => self.check_refused(&inside, reason)?,
        }
        Ok(())
    }

    /// A new mapping has an endpoint that is neither taken nor resting, at its host's address.
    fn check_new(&self, inside: &Inside, outside: SocketAddrV4) -> Result<(), TestCaseError> {
        let (transport, realm, from) = *inside;
        let mappings = &self.model.mappings;
        prop_assert!(mappings.len() < MAPPINGS_MAX);
        for ((other_transport, other_realm, other), mapping) in mappings {
            prop_assert!((*other_transport, mapping.outside) != (transport, outside), "shared");
            if (*other_realm, other.ip()) == (realm, from.ip()) {
                prop_assert_eq!(mapping.outside.ip(), outside.ip(), "paired pooling");
            }
        }
        let rests =
            |(_, t, end): &(Instant, Transport, SocketAddrV4)| (*t, *end) == (transport, outside);
        prop_assert!(!self.model.resting.iter().any(rests), "resting");
        Ok(())
    }

    /// What was refused was refused for a reason.
    fn check_refused(&self, inside: &Inside, reason: DropReason) -> Result<(), TestCaseError> {
        let (transport, realm, from) = *inside;
        let mappings = &self.model.mappings;
        prop_assert!(!mappings.contains_key(inside), "what lives is not refused: {reason}");
        if mappings.len() >= MAPPINGS_MAX {
            prop_assert_eq!(reason, DropReason::NatTableFull);
            return Ok(());
        }
        let of_host = |(_, r, end): &&Inside| (*r, end.ip()) == (realm, from.ip());
        let share = mappings.keys().filter(of_host).count();
        let address = mappings.iter().find(|(key, _)| of_host(key)).map(|(_, m)| *m.outside.ip());
        let same = |t: Transport, end: &SocketAddrV4| {
            t == transport && address.is_none_or(|address| *end.ip() == address)
        };
        let taken = mappings.iter().filter(|((t, _, _), m)| same(*t, &m.outside)).count()
            + self.model.resting.iter().filter(|(_, t, end)| same(*t, end)).count();
        let ports = if address.is_some() { 12 } else { 24 };
        if reason == DropReason::NatHostLimit {
            prop_assert!(share >= PER_HOST_MAX, "{share}");
        } else {
            prop_assert_eq!(reason, DropReason::NatPortsExhausted);
            prop_assert!(taken >= ports, "{taken}");
        }
        Ok(())
    }

    fn back(&mut self, inside: Inside, remote: usize, flags: u8) -> Result<(), TestCaseError> {
        let (transport, realm, to) = inside;
        let now = self.lab.now;
        let (filtering, permits) = (self.filtering, self.keeps_permits(transport));
        let Some(mapping) = self.model.mappings.get_mut(&inside) else { return Ok(()) };
        let upper = upper(transport, false, flags);
        let result = self.lab.back(REMOTES[remote], mapping.outside, upper);
        let let_in = if mapping.lease.is_some() {
            true
        } else if permits {
            mapping.permits.contains_key(&filter_key(filtering, transport, remote))
        } else {
            filtering == Dependence::EndpointIndependent || mapping.calls.contains_key(&remote)
        };
        if !let_in {
            prop_assert_eq!(result, Err(DropReason::NatFiltered));
            return Ok(());
        }
        prop_assert_eq!(result, Ok((realm, to)));
        if transport == Transport::Tcp {
            if let Some(call) = mapping.calls.get_mut(&remote) {
                call.packet(now, false, flags);
            } else if flags & (SYN | ACK | RST) == SYN {
                mapping.calls.insert(remote, Call { syn_in: true, active: now, ..NEW });
            }
        }
        Ok(())
    }

    fn guess(&mut self, transport: Transport, port: u16) -> Result<(), TestCaseError> {
        for address in [Ipv4Addr::new(198, 51, 100, 4), Ipv4Addr::new(198, 51, 100, 5)] {
            let outside = SocketAddrV4::new(address, port);
            let taken = (self.model.mappings.iter())
                .find(|((t, _, _), mapping)| (*t, mapping.outside) == (transport, outside));
            if taken.is_none() {
                let result = self.lab.back(REMOTES[0], outside, upper(transport, false, SYN));
                prop_assert_eq!(result, Err(DropReason::Unsolicited));
            }
        }
        Ok(())
    }

    fn lease(&mut self, inside: Inside, seconds: u64) -> Result<(), TestCaseError> {
        let (transport, realm, from) = inside;
        if transport == Transport::Icmp {
            return Ok(());
        }
        let wanted = LeaseRequest {
            transport,
            realm,
            inside: from.into(),
            wished: None,
            only_wished: false,
            nonce: *b"twelve bytes",
            lifetime: Duration::from_secs(seconds),
        };
        let until = self.lab.now + wanted.lifetime;
        let known = self.model.mappings.contains_key(&inside);
        match self.lab.nat.lease(self.lab.now, &wanted) {
            Ok(outside) => {
                let outside = socket(outside.ip(), outside.port());
                if !known {
                    self.check_new(&inside, outside)?;
                }
                let mapping = self.model.mappings.entry(inside).or_insert_with(|| Modelled {
                    outside,
                    until,
                    lease: None,
                    calls: BTreeMap::new(),
                    permits: BTreeMap::new(),
                });
                prop_assert_eq!(mapping.outside, outside, "what lives is taken over as it is");
                (mapping.until, mapping.lease) = (until, Some(until));
            }
            Err(LeaseError::HostLimit) => {
                self.check_refused(&inside, DropReason::NatHostLimit)?;
            }
            Err(LeaseError::NoResources) => {
                let full = self.model.mappings.len() >= MAPPINGS_MAX;
                let reason =
                    if full { DropReason::NatTableFull } else { DropReason::NatPortsExhausted };
                self.check_refused(&inside, reason)?;
            }
            Err(reason) => prop_assert!(false, "{reason}"),
        }
        Ok(())
    }

    fn give_back(&mut self, inside: Inside) -> Result<(), TestCaseError> {
        let (transport, realm, from) = inside;
        let now = self.lab.now;
        let done = self.lab.nat.give_back(now, transport, realm, from.into(), *b"twelve bytes");
        prop_assert_eq!(done, Ok(()));
        if self.model.mappings.get(&inside).is_some_and(|mapping| mapping.lease.is_some()) {
            let outside = self.model.mappings[&inside].outside;
            self.model.mappings.remove(&inside);
            self.model.resting.push((now + Duration::from_secs(120), transport, outside));
        }
        Ok(())
    }

    fn wait(&mut self, seconds: u64) {
        // All deadlines are whole seconds apart; one tick later all that are past have fired.
        self.lab.now += Duration::from_secs(seconds);
        let late = self.lab.now + Wheel::RESOLUTION;
        assert!(self.lab.nat.expire(late, 1_000_000) > 0);
        self.model.expire(late);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]
    #[test]
    fn behaves_like_the_naive_nat(
        steps in prop::collection::vec(step(), 1..150),
        filtering in prop::sample::select(vec![
            Dependence::EndpointIndependent,
            Dependence::Address,
            Dependence::AddressAndPort,
        ]),
    ) {
        let mut test = Test::new(filtering);
        for step in steps {
            match step {
                Step::Out { inside, remote, flags } => test.out(inside, remote, flags)?,
                Step::In { inside, remote, flags } => test.back(inside, remote, flags)?,
                Step::Open { inside, remote } => {
                    test.out(inside, remote, SYN)?;
                    test.back(inside, remote, SYN | ACK)?;
                }
                Step::Close { inside, remote } => {
                    test.back(inside, remote, FIN | ACK)?;
                    test.out(inside, remote, FIN | ACK)?;
                }
                Step::Guess { transport, port } => test.guess(transport, port)?,
                Step::Lease { inside, seconds } => test.lease(inside, seconds)?,
                Step::GiveBack { inside } => test.give_back(inside)?,
                Step::Wait(seconds) => test.wait(seconds),
            }
            test.lab.nat.check();
            let counts = test.lab.nat.counts();
            prop_assert_eq!(counts.mappings, test.model.mappings.len() as u64);
            let of_mapping = |m: &Modelled| m.calls.len() + m.permits.len();
            let sessions: usize = test.model.mappings.values().map(of_mapping).sum();
            prop_assert_eq!(counts.sessions, sessions as u64);
            prop_assert_eq!(counts.created - counts.expired, counts.mappings);
        }
    }
}
