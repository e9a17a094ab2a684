//! The outage: the direct path of a pair in use fails silently, and comes back.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use netns_tests::lab::tick::Report as TickReport;
use netns_tests::lab::{Lab, clock};
use netns_tests::wan::Report as WanReport;

use super::screen::{Screen, Tone};
use super::strip::Strip;
use super::tools::{self, Background};

/// The pair, and the only link that joins them directly.
const PAIR: [&str; 2] = ["mediaone", "arosnet"];
const LINK: [&str; 2] = ["mediaone-att", "arosnet-uunet"];

/// Ticks a second, each way.
const RATE: u32 = 200;

/// The longest that a silent failure may keep hosts apart.
const GAP_LIMIT_MS: f64 = 3000.0;

/// Pauses that a viewer would notice.
const NOTICEABLE_MS: f64 = 1000.0;

const SECOND: Duration = Duration::from_secs(1);

/// Between two looks at the status.
const LOOK: Duration = Duration::from_millis(150);

/// A download that goes on through the outage, and its rate.
const BYTES: u64 = 6_000_000;
const BYTE_RATE: &str = "500K";

/// How long to wait for the relay, and for the return.
const RELAY_LIMIT: Duration = Duration::from_secs(15);
const RETURN_LIMIT: Duration = Duration::from_secs(30);

/// The whole act.
pub(crate) fn play(screen: &mut Screen, lab: &mut Lab) -> Result<()> {
    screen.act("The direct path between mediaone and arosnet fails, and nobody is told");
    screen.line(
        Tone::Dim,
        "AT&T and UUNET drop each other's packets from here on. mediaone-h1 pings\n\
         arosnet-h1 20 times a second: • answered, × lost. Beside it run ticks both\n\
         ways and a download.",
    );
    for (site, peer) in [(PAIR[0], PAIR[1]), (PAIR[1], PAIR[0])] {
        lab.gateway(site)?.wait_via(peer, None, 20 * SECOND)?;
    }
    let (a, b) = (lab.host(PAIR[0], 1)?, lab.host(PAIR[1], 1)?);
    let url = tools::bytes_url(b.v4, BYTES);
    let original = tools::fetch(&b, &url)?;
    let mut download = Background::start(&a, &url, BYTE_RATE)?;
    let (there, back) = (a.start_ticks(&b, b.v4, RATE)?, b.start_ticks(&a, a.v4, RATE)?);
    let started = clock::now();

    let mut strip = Strip::start(&a, b.v4, "direct")?;
    let lead_s = started.elapsed().as_secs_f64();
    strip.watch(screen, 2 * SECOND, |_| Ok(false))?;
    let before = lab.wan()?.counters()?;
    let seen = fail_and_heal(screen, lab, &mut strip, &mut download)?;
    let pings_lost = strip.finish(screen)?;

    let ticks = Measured { reports: [there.stop()?, back.stop()?], lead_s };
    tell_gap(screen, &ticks, &seen, pings_lost);
    tell_relay(screen, &seen, &before);
    tell_return(screen, &ticks, &seen);
    let got = download.finish()?;
    let same = got.sha256 == original.sha256;
    let figure = format!("{:.0} MB, SHA-256 {}…", got.bytes / 1e6, &got.sha256[..8]);
    screen.result("the download that ran through it", &figure);
    screen.claim(same && seen.busy, "a download goes on through the outage", &figure);
    Ok(())
}

/// The relays of both directions; `None` for the direct path.
type Ways = [Option<String>; 2];

/// The outage and its end. Times are in seconds after the first ping.
#[derive(Debug, Default)]
struct Seen {
    cut: f64,
    /// When both gateways had moved to relays.
    relayed: Option<f64>,
    /// Every change of way while the link was down.
    ways: Vec<Ways>,
    /// Whether the download was under way when the relay took over.
    busy: bool,
    healed: f64,
    /// What the links had carried when it was healed.
    carried: WanReport,
    returned: Option<f64>,
}

fn fail_and_heal(
    screen: &Screen,
    lab: &mut Lab,
    strip: &mut Strip,
    download: &mut Background,
) -> Result<Seen> {
    let mut seen = Seen::default();
    lab.cut(LINK[0], LINK[1])?;
    seen.cut = strip.seconds();
    strip.change("the link is cut");
    let mut watch = Watch { screen, lab, last: Ways::default() };
    let both = |ways: &Ways| ways.iter().all(Option::is_some);
    seen.relayed = watch.until(strip, RELAY_LIMIT, &mut seen.ways, both)?;
    seen.busy = download.runs()?;
    watch.until(strip, 4 * SECOND, &mut seen.ways, |_| false)?;

    seen.carried = watch.lab.wan()?.counters()?;
    watch.lab.heal(LINK[0], LINK[1])?;
    seen.healed = strip.seconds();
    strip.change("the link is healed");
    let direct = |ways: &Ways| ways.iter().all(Option::is_none);
    seen.returned = watch.until(strip, RETURN_LIMIT, &mut Vec::new(), direct)?;
    strip.watch(screen, 2 * SECOND, |_| Ok(false))?;
    Ok(seen)
}

/// Looks at how both gateways reach each other, while the strip goes on.
struct Watch<'a> {
    screen: &'a Screen,
    lab: &'a mut Lab,
    last: Ways,
}

impl Watch<'_> {
    /// Notes every change, until `done`; returns when that was, `None` after `limit`.
    fn until(
        &mut self,
        strip: &mut Strip,
        limit: Duration,
        changes: &mut Vec<Ways>,
        done: impl Fn(&Ways) -> bool,
    ) -> Result<Option<f64>> {
        let mut next = clock::now();
        let screen = self.screen;
        let came = strip.watch(screen, limit, |strip| {
            if clock::now() < next {
                return Ok(false);
            }
            next = clock::now() + LOOK;
            // Without any path there is nothing to tell yet.
            let Ok(ways) = self.ways() else { return Ok(false) };
            if ways != self.last {
                strip.change(&in_words(&ways));
                changes.push(ways.clone());
                self.last.clone_from(&ways);
            }
            Ok(done(&ways))
        })?;
        Ok(came.then(|| strip.seconds()))
    }

    fn ways(&mut self) -> Result<Ways> {
        let mut way = |from: &str, to| self.lab.gateway(from)?.status()?.via(to, "latency");
        Ok([way(PAIR[0], PAIR[1])?, way(PAIR[1], PAIR[0])?])
    }
}

fn in_words(ways: &Ways) -> String {
    let [there, back] = ways.each_ref().map(|way| match way {
        Some(relay) => format!("via {relay}"),
        None => "direct".into(),
    });
    if there == back { there } else { format!("{there} / {back}") }
}

/// What the ticks of both directions saw; they began `lead_s` before the first ping.
struct Measured {
    reports: [TickReport; 2],
    lead_s: f64,
}

impl Measured {
    /// The longest pauses that began in a span of time, one for each direction; zero if none did.
    fn longest(&self, from: f64, to: f64) -> [f64; 2] {
        let span = (from + self.lead_s) * 1e3..(to + self.lead_s) * 1e3;
        self.reports.each_ref().map(|report| {
            let inside = report.gaps.iter().filter(|gap| span.contains(&gap.at_ms));
            inside.map(|gap| gap.length_ms).fold(0.0, f64::max)
        })
    }
}

fn tell_gap(screen: &mut Screen, ticks: &Measured, seen: &Seen, pings_lost: u64) {
    // The last ticks before the cut are still under way when it happens.
    let [there, back] = ticks.longest(seen.cut - 0.5, seen.healed);
    let gap = there.max(back);
    let [lost, lost_back] = ticks.reports.each_ref().map(TickReport::lost);
    let sent = ticks.reports.iter().map(|report| report.sent).sum::<u64>();
    screen.result(
        &format!("gap, by {RATE} ticks a second each way"),
        &format!("{} there, {} back", pause_in_words(there), pause_in_words(back)),
    );
    screen.result(
        "lost on the whole",
        &format!("{} of {sent} ticks, {pings_lost} pings", lost + lost_back),
    );
    // Without a loss there was no outage; and what never comes again is no gap but an end.
    let to_the_end = |report: &TickReport| report.highest + u64::from(RATE) > report.sent;
    let alive = ticks.reports.iter().all(to_the_end);
    let holds = lost + lost_back > 0 && alive && gap < GAP_LIMIT_MS;
    let figure = format!("{}, {} of {sent} ticks lost", pause_in_words(gap), lost + lost_back);
    screen.claim(holds, "a silent outage is crossed within 3 s", &figure);
}

/// A pause in milliseconds; the ticks' reports leave out those below twenty intervals.
fn pause_in_words(ms: f64) -> String {
    match ms > 0.0 {
        true => format!("{ms:.0} ms"),
        false => format!("under {} ms", 20_000 / RATE),
    }
}

/// The relay, by the gateways' own word and by what the emulated links have carried.
fn tell_relay(screen: &mut Screen, seen: &Seen, before: &WanReport) {
    let (Some(at), Some(last)) = (seen.relayed, seen.ways.last()) else {
        screen.claim(false, "a relay takes over", "none did");
        return;
    };
    let after = at - seen.cut;
    let names = in_words(last);
    let carried = [0, 1].map(|direction| {
        let used = seen.ways.iter().filter_map(|ways| ways[direction].as_deref());
        used.collect::<BTreeSet<_>>()
            .into_iter()
            .map(|relay| {
                let count = |report: &WanReport| delivered(report, PAIR[direction], relay);
                count(&seen.carried).saturating_sub(count(before))
            })
            .sum::<u64>()
    });
    let packets = carried[0].min(carried[1]);
    screen.result("the way by rongate status", &format!("{names}, after {after:.2} s"));
    screen.result("packets that its links carried", &packets.to_string());
    let wanted = f64::from(RATE) * (seen.healed - at) * 0.9;
    let holds = last.iter().all(Option::is_some) && packets as f64 > wanted;
    let figure = format!("{names}, after {after:.2} s");
    screen.claim(holds, "a relay takes over", &figure);
}

/// Packets that all links from one site to another have delivered.
fn delivered(report: &WanReport, from: &str, to: &str) -> u64 {
    let between = |name: &str| {
        let (a, b) = name.split_once('>')?;
        Some(a.split_once('-')?.0 == from && b.split_once('-')?.0 == to)
    };
    let links = report.links.iter().filter(|(name, _)| between(name) == Some(true));
    links.map(|(_, counters)| counters.delivered).sum()
}

fn tell_return(screen: &mut Screen, ticks: &Measured, seen: &Seen) {
    let Some(returned) = seen.returned else {
        screen.claim(false, "back on the direct path once it is healed", "it did not return");
        return;
    };
    let after = returned - seen.healed;
    let [there, back] = ticks.longest(seen.healed, returned + 10.0);
    let pause = there.max(back);
    let gap = match pause > 0.0 {
        true => format!("pause {pause:.0} ms"),
        false => "no pause".into(),
    };
    let figure = format!("after {after:.1} s, {gap}");
    screen.result("return to the direct path", &figure);
    let calm = seen.relayed.is_some() && pause < NOTICEABLE_MS;
    screen.claim(calm, "back on the direct path once it is healed", &figure);
}

#[cfg(test)]
mod tests {
    use super::*;
    use netns_tests::lab::tick::Gap;
    use netns_tests::wan::report::LinkCounters;

    #[test]
    fn a_pause_belongs_to_the_time_it_began_in() {
        let gap = |at_ms, length_ms| Gap { at_ms, length_ms, after: 0, before: 1 };
        let gaps = vec![gap(3_600.0, 700.0), gap(9_000.0, 120.0)];
        let there = TickReport { gaps, ..TickReport::default() };
        let ticks = Measured { reports: [there, TickReport::default()], lead_s: 0.5 };
        assert_eq!(ticks.longest(3.0, 8.0), [700.0, 0.0]);
        assert_eq!(ticks.longest(8.0, 20.0), [120.0, 0.0]);
    }

    #[test]
    fn links_between_two_sites_are_added_up() {
        let counters = |delivered| LinkCounters { delivered, ..LinkCounters::default() };
        let links = [("mit-bbn>utah-qwest", 3), ("mit-i2>utah-i2", 4), ("utah-i2>mit-i2", 9)];
        let links = links.map(|(name, count)| (name.to_owned(), counters(count))).into();
        let report = WanReport { links, ..WanReport::default() };
        assert_eq!(delivered(&report, "mit", "utah"), 7);
    }
}
