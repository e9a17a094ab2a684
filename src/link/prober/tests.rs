use super::*;

const IN_USE: Duration = Duration::from_millis(250);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A prober and a path with a fixed delay that loses what `lost(sent at, seq)` says.
struct Bench<F> {
    prober: Prober,
    rtt: Duration,
    lost: F,
    now: Instant,
    replies: Vec<(Instant, u32, Instant)>,
    changes: Vec<(Instant, Liveness)>,
    probes: u32,
}

impl<F: FnMut(Instant, u32) -> bool> Bench<F> {
    fn new(rtt: Duration, lost: F) -> Self {
        let now = Instant::from_micros(1_000_000);
        let rng = Rng::new([3; 32]);
        Self {
            prober: Prober::new(now, &ProberConfig::STANDARD, IN_USE, rng),
            rtt,
            lost,
            now,
            replies: Vec::new(),
            changes: Vec::new(),
            probes: 0,
        }
    }

    fn run_until(&mut self, end: Instant) {
        loop {
            let reply = self.replies.first().map(|reply| reply.0);
            let (timer, _) = self.prober.poll_timeout();
            let next = reply.map_or(timer, |reply| reply.min(timer)).max(self.now);
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            while self.replies.first().is_some_and(|reply| reply.0 <= next) {
                let (_, seq, sent_at) = self.replies.remove(0);
                let outcome = self.prober.on_reply(next, seq, sent_at, Duration::ZERO);
                self.changes.extend(outcome.change.map(|state| (next, state)));
            }
            let change = self.prober.handle_timeout(next, false);
            self.changes.extend(change.map(|state| (next, state)));
            if let Some(probe) = self.prober.poll_probe(next) {
                self.probes += 1;
                if !(self.lost)(next, probe.seq) {
                    self.replies.push((next + self.rtt, probe.seq, next));
                }
            }
        }
    }
}

fn before(instant: Instant, span: Duration) -> Instant {
    Instant::from_micros(instant.as_micros() - span.as_micros() as u64)
}

fn at(ms: u64) -> Instant {
    Instant::from_micros(1_000_000 + ms * 1000)
}

/// Reports on traffic may end the suspicion of a path that became longer before three answers came.
#[test]
fn a_path_that_became_longer_is_believed_soon() {
    for idle in [false, true] {
        let mut bench = Bench::new(ms(40), |_, _| false);
        if idle {
            bench.prober.set_interval(bench.now, ms(4_000));
        }
        bench.run_until(at(20_000));
        bench.rtt = ms(240);
        bench.prober.on_silence(at(20_000), at(19_950));
        bench.run_until(at(20_120));
        assert_eq!(bench.prober.on_progress(at(20_120), at(20_110)), Some(Liveness::Up));
        let limit = if idle { 2_600 } else { 650 };
        bench.run_until(at(20_000 + limit));
        let report = bench.prober.report(bench.now);
        assert_eq!((report.latency_us, report.state), (240_000, Liveness::Up), "{idle}");
        // Then all is as before.
        let probes = bench.probes;
        bench.run_until(at(40_000 + limit));
        let few = if idle { 4..=7 } else { 75..=90 };
        assert!(few.contains(&(bench.probes - probes)), "{}", bench.probes - probes);
    }
}

#[test]
fn the_first_answer_brings_a_new_path_up() {
    let mut bench = Bench::new(ms(80), |_, _| false);
    bench.run_until(at(5_000));
    assert_eq!(bench.changes, [(at(80), Liveness::Up)]);
    assert_eq!(bench.prober.report(bench.now).latency_us, 80_000);
    let per_second = f64::from(bench.probes) / 5.0;
    assert!((3.5..4.6).contains(&per_second), "{per_second}");
}

#[test]
fn an_outage_of_a_path_in_use_is_found_within_a_second() {
    for rtt in [1, 20, 80, 200] {
        for start in 0..20 {
            let begin = at(10_000 + start * 13);
            let mut bench = Bench::new(ms(rtt), |sent, _| sent >= begin);
            bench.run_until(at(13_000));
            let states: Vec<_> = bench.changes.iter().map(|change| change.1).collect();
            assert_eq!(states, [Liveness::Up, Liveness::Suspect, Liveness::Down]);
            let suspect = bench.changes[1].0 - begin;
            let down = bench.changes[2].0 - begin;
            assert!(suspect <= ms(275 + rtt + 55), "rtt {rtt}: suspect after {suspect:?}");
            assert!(down <= ms(1000), "rtt {rtt}: down after {down:?}");
        }
    }
}

#[test]
fn a_single_loss_is_suspicion_that_the_next_answer_clears() {
    let mut bench = Bench::new(ms(40), |_, seq| seq == 20);
    bench.run_until(at(10_000));
    let states: Vec<_> = bench.changes.iter().map(|change| change.1).collect();
    assert_eq!(states, [Liveness::Up, Liveness::Suspect, Liveness::Up]);
    assert!(bench.changes[2].0 - bench.changes[1].0 <= ms(41));
    assert_eq!(bench.prober.flaps().downs(), 0);
    assert!(bench.prober.report(bench.now).loss.fraction() < 0.04);
}

#[test]
fn recovery_needs_three_answers_in_a_row_and_leaves_no_loss_behind() {
    let (begin, end) = (at(20_000), at(50_000));
    let mut bench = Bench::new(ms(30), |sent, _| sent >= begin && sent < end);
    bench.run_until(at(60_000));
    let last = *bench.changes.last().unwrap();
    assert_eq!(last.1, Liveness::Up);
    assert!(last.0 - end <= ms(2_200 + 3 * 90), "{:?}", last.0 - end);
    assert_eq!(bench.prober.estimator().probe_loss(), Some(crate::metric::Loss::NONE));
    assert!(bench.prober.report(bench.now).loss.fraction() < 1e-3);
    assert_eq!(bench.prober.flaps().downs(), 1);
    assert_eq!(bench.prober.flaps().downs_within(bench.now, ms(1_000)), 0);
    assert!(bench.prober.flaps().last().unwrap() - begin <= ms(1_000));
}

#[test]
fn one_good_probe_in_an_outage_does_not_end_it() {
    let begin = at(5_000);
    let mut bench = Bench::new(ms(30), |sent, seq| sent >= begin && seq % 3 != 0);
    bench.run_until(at(60_000));
    let back = bench.changes.iter().filter(|change| change.1 == Liveness::Up && change.0 > begin);
    // An answer clears suspicion, so such a path is suspect over and over; but once it is down, two
    // losses of three keep it there.
    let down = bench.changes.iter().position(|change| change.1 == Liveness::Down);
    if let Some(down) = down {
        assert_eq!(down, bench.changes.len() - 1);
    } else {
        assert!(back.count() > 5);
        assert!(bench.prober.report(bench.now).loss.fraction() > 0.4);
    }
}

#[test]
fn a_dead_path_is_probed_ever_more_slowly() {
    let mut bench = Bench::new(ms(30), |_, _| true);
    bench.run_until(at(60_000));
    assert!(bench.changes.is_empty(), "it never was up");
    assert!((30..40).contains(&bench.probes), "{}", bench.probes);
}

#[test]
fn silence_does_not_count_when_our_own_turn_was_late() {
    let mut bench = Bench::new(ms(30), |_, _| false);
    bench.run_until(at(5_000));
    let stalled = bench.now + ms(700);
    bench.prober.poll_probe(bench.now + ms(250)).unwrap();
    assert_eq!(bench.prober.handle_timeout(stalled, true), None);
    assert_eq!(bench.prober.handle_timeout(stalled + ms(49), true), None);
    let due = bench.prober.handle_timeout(stalled + ms(51), true);
    assert_eq!(due, Some(Liveness::Suspect), "the grace is given once");
}

#[test]
fn a_late_answer_takes_the_miss_back() {
    let mut bench = Bench::new(ms(30), |_, _| false);
    bench.run_until(at(5_000));
    let sent = bench.now + ms(300);
    let probe = bench.prober.poll_probe(sent).unwrap();
    assert_eq!(bench.prober.handle_timeout(sent + ms(100), false), Some(Liveness::Suspect));
    let outcome = bench.prober.on_reply(sent + ms(150), probe.seq, sent, ms(20));
    assert_eq!(outcome, ReplyOutcome { rtt: Some(ms(130)), change: Some(Liveness::Up) });
    assert!(bench.prober.report(bench.now).loss.fraction() < 1e-3);
    let again = bench.prober.on_reply(sent + ms(160), probe.seq, sent, Duration::ZERO);
    assert_eq!(again, ReplyOutcome::default());
}

#[test]
fn answers_to_nothing_we_sent_change_nothing_but_last_heard() {
    let mut bench = Bench::new(ms(30), |_, _| false);
    bench.run_until(at(5_000));
    let before = bench.prober.report(bench.now);
    let later = bench.now + ms(5);
    for (seq, sent_at) in [(u32::MAX, later), (5, at(1)), (1_000, bench.now)] {
        let outcome = bench.prober.on_reply(later, seq, sent_at, Duration::ZERO);
        assert_eq!(outcome, ReplyOutcome::default());
    }
    assert_eq!(bench.prober.report(bench.now), before);
    assert_eq!(bench.prober.last_heard(), Some(later));
}

#[test]
fn what_is_heard_does_not_hide_that_our_own_packets_are_lost() {
    let mut bench = Bench::new(ms(30), |_, _| false);
    bench.run_until(at(5_000));
    let mut lost = Bench {
        prober: bench.prober,
        rtt: bench.rtt,
        lost: |_, _| true,
        now: bench.now,
        replies: Vec::new(),
        changes: Vec::new(),
        probes: 0,
    };
    for _ in 0..50 {
        lost.run_until(lost.now + ms(20));
        lost.prober.on_receive(lost.now);
    }
    assert_eq!(lost.prober.state(), Liveness::Down);
}

#[test]
fn a_shorter_interval_takes_effect_at_once_and_riding_probes_replace_due_ones() {
    let mut bench = Bench::new(ms(30), |_, _| false);
    bench.prober.set_interval(bench.now, Duration::from_secs(4));
    bench.run_until(at(5_000));
    assert_eq!(bench.prober.poll_timeout().1, "probe");
    bench.prober.set_interval(bench.now, IN_USE);
    assert!(bench.prober.poll_timeout().0 - bench.now <= IN_USE);
    bench.run_until(bench.now + ms(400));
    let (due, _) = bench.prober.poll_timeout();
    assert_eq!(bench.prober.poll_riding_probe(before(due, ms(200))), None);
    assert!(bench.prober.poll_riding_probe(before(due, ms(100))).is_some());
    assert_eq!(bench.prober.poll_probe(due), None);
}

#[test]
fn a_path_that_becomes_important_is_sought_at_once() {
    let back = Instant::from_micros(200_000_000);
    let mut bench = Bench::new(ms(20), |at, _| at > Instant::from_micros(5_000_000) && at < back);
    bench.run_until(Instant::from_micros(6_000_000));
    // Idle, and few probes are allowed: the pauses grow long.
    bench.prober.set_interval(bench.now, Duration::from_secs(60));
    bench.run_until(Instant::from_micros(201_000_000));
    assert_eq!(bench.prober.state(), Liveness::Down);
    bench.prober.set_interval(bench.now, Duration::from_secs(4));
    bench.run_until(bench.now + Duration::from_secs(3));
    assert_eq!(bench.prober.state(), Liveness::Up);
}

#[test]
fn a_lossy_path_that_comes_back_is_up_within_seconds_of_its_first_answer() {
    for phase in 0..20 {
        let back = at(60_000);
        let lossy = |sent: Instant, seq: u32| {
            sent >= at(5_000) && (sent < back || (seq + phase).is_multiple_of(4))
        };
        let mut bench = Bench::new(ms(40), lossy);
        bench.prober.set_interval(at(0), Duration::from_secs(4));
        bench.run_until(at(64_000));
        let (when, state) = *bench.changes.last().unwrap();
        assert_eq!(state, Liveness::Up, "phase {phase}");
        assert!(when - back < Duration::from_secs(4), "phase {phase}: {:?}", when - back);
    }
}

#[test]
fn who_is_heard_is_asked_every_second_even_in_an_outage() {
    let mut bench = Bench::new(ms(40), |sent, _| sent >= at(5_000));
    bench.prober.set_interval(at(0), Duration::from_secs(60));
    bench.run_until(at(120_000));
    let (before, begun) = (bench.probes, bench.now);
    for step in 1..=100 {
        bench.run_until(begun + ms(100 * step));
        bench.prober.on_receive(bench.now);
    }
    assert!((9..=11).contains(&(bench.probes - before)), "{}", bench.probes - before);
}

#[test]
fn what_comes_in_says_nothing_of_the_other_direction() {
    let cut = Instant::from_micros(11_000_000);
    let mut bench = Bench::new(ms(40), |at, _| at >= cut);
    bench.run_until(cut + ms(400));
    let whole = bench.prober.last_whole().unwrap();
    assert!(whole <= cut + ms(40) && whole + ms(400) > cut, "{whole:?}");
    bench.prober.on_receive(bench.now);
    assert_eq!(bench.prober.last_heard(), Some(bench.now));
    assert_eq!(bench.prober.last_whole(), Some(whole));
}
