//! What a directed link does to packets.

use serde::{Deserialize, Serialize};

use super::units::{Queue, Rate, Time};

/// Bursty loss: a chain of two states, good and bad, that steps once for each packet.
///
/// Written as a list: `[p, r, bad]` or `[p, r, bad, good]`. The mean loss is
/// `bad * p / (p + r) + good * r / (p + r)`; bad spells last `1 / r` packets on average.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<f64>", into = "Vec<f64>")]
pub struct GilbertElliott {
    /// Probability to go from good to bad; zero turns the model off.
    pub to_bad: f64,
    /// Probability to go from bad to good.
    pub to_good: f64,
    /// Loss in the bad state.
    pub loss_bad: f64,
    /// Loss in the good state.
    pub loss_good: f64,
}

impl TryFrom<Vec<f64>> for GilbertElliott {
    type Error = String;

    fn try_from(list: Vec<f64>) -> Result<Self, String> {
        match *list.as_slice() {
            [to_bad, to_good, loss_bad] => Ok(Self { to_bad, to_good, loss_bad, loss_good: 0.0 }),
            [to_bad, to_good, loss_bad, loss_good] => {
                Ok(Self { to_bad, to_good, loss_bad, loss_good })
            }
            _ => Err("expected [to_bad, to_good, loss_bad] or a fourth number, loss_good".into()),
        }
    }
}

impl From<GilbertElliott> for Vec<f64> {
    fn from(ge: GilbertElliott) -> Self {
        vec![ge.to_bad, ge.to_good, ge.loss_bad, ge.loss_good]
    }
}

macro_rules! link_parameters {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $default:expr;)*) => {
        /// Everything a directed link does to packets.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct LinkParams {
            $($(#[$doc])* pub $name: $type,)*
        }

        impl Default for LinkParams {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        /// A change of some of a link's parameters; what is absent stays as it is.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct LinkSettings {
            $(
                $(#[$doc])*
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $name: Option<$type>,
            )*
        }

        impl LinkSettings {
            /// Writes the given values into `params`.
            pub fn apply(&self, params: &mut LinkParams) {
                $(if let Some(value) = &self.$name { params.$name = value.clone(); })*
            }
        }
    };
}

link_parameters! {
    /// Nothing passes, and nobody is told. Packets already under way still arrive.
    down: bool = false;
    /// One-way delay.
    delay: Time = Time(0);
    /// Delay varies uniformly by up to this much to either side (never below zero).
    jitter: Time = Time(0);
    /// Jitter and changes of delay never let a packet overtake another: a late one holds up those
    /// behind it.
    keep_order: bool = true;
    /// Probability that a packet is lost, independently of others.
    loss: f64 = 0.0;
    /// Bursty loss, in addition to `loss`.
    ge: GilbertElliott = GilbertElliott::default();
    /// Bit rate, counting IP bytes; 0 for no limit.
    rate: Rate = Rate(0);
    /// Bound of the queue in front of `rate`.
    queue: Queue = Queue::Time(Time::from_millis(100));
    /// Probability that a packet arrives twice.
    duplicate: f64 = 0.0;
    /// Probability that a packet is held back by `reorder_delay` and overtaken.
    reorder: f64 = 0.0;
    /// How long a packet chosen by `reorder` is held back.
    reorder_delay: Time = Time::from_millis(5);
    /// Probability that one bit behind the IP header is flipped.
    corrupt: f64 = 0.0;
    /// Corrupted packets get a matching TCP or UDP checksum, so that they reach the application.
    corrupt_mended: bool = false;
    /// Largest IP packet in bytes; 0 for no limit.
    mtu: u32 = 0;
    /// Packets larger than `mtu` are answered with "fragmentation needed" or "packet too big".
    pmtud: bool = true;
    /// Routers on the way: each takes one from the TTL, and answers when it runs out.
    hops: u8 = 0;
}

/// The longest delay, jitter and reordering delay accepted: one minute.
const DELAY_MAX: Time = Time(60_000_000_000);

impl LinkParams {
    /// Refuses probabilities outside 0 to 1, absurd delays, and an MTU no IP packet fits in.
    pub fn validate(&self) -> Result<(), String> {
        let ge = &self.ge;
        let probabilities = [
            ("loss", self.loss),
            ("ge", ge.to_bad),
            ("ge", ge.to_good),
            ("ge", ge.loss_bad),
            ("ge", ge.loss_good),
            ("duplicate", self.duplicate),
            ("reorder", self.reorder),
            ("corrupt", self.corrupt),
        ];
        for (key, p) in probabilities {
            if !(0.0..=1.0).contains(&p) {
                return Err(format!("{key}: {p} is not a probability from 0 to 1"));
            }
        }
        for (key, time) in
            [("delay", self.delay), ("jitter", self.jitter), ("reorder_delay", self.reorder_delay)]
        {
            if time > DELAY_MAX {
                return Err(format!("{key}: {time} is more than {DELAY_MAX}"));
            }
        }
        if self.mtu != 0 && self.mtu < 68 {
            return Err(format!("mtu: {} is below 68, the least of IPv4", self.mtu));
        }
        Ok(())
    }

    /// True when packets of a train can have different fates or spacing, so that it must be cut.
    pub(crate) fn tells_packets_apart(&self) -> bool {
        self.loss > 0.0
            || self.ge.to_bad > 0.0
            || self.ge.loss_good > 0.0
            || self.rate.0 > 0
            || self.duplicate > 0.0
            || self.reorder > 0.0
            || self.corrupt > 0.0
            || (self.jitter.0 > 0 && !self.keep_order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_change_only_what_they_name() {
        let mut params = LinkParams::default();
        let settings: LinkSettings =
            serde_yaml::from_str("{delay: 40ms, ge: [0.01, 0.2, 1.0], queue: 64kB}").unwrap();
        settings.apply(&mut params);
        assert_eq!(params.delay, Time::from_millis(40));
        assert_eq!(params.queue, Queue::Bytes(64_000));
        assert_eq!(params.ge.to_good, 0.2);
        LinkSettings { down: Some(true), ..LinkSettings::default() }.apply(&mut params);
        assert!(params.down);
        assert_eq!(params.delay, Time::from_millis(40));
    }

    #[test]
    fn settings_survive_a_round_trip_through_text() {
        let text = "{delay: 40ms, rate: 10mbit, ge: [0.01, 0.2, 1.0], mtu: 1400, pmtud: false}";
        let settings: LinkSettings = serde_yaml::from_str(text).unwrap();
        let again = serde_yaml::from_str(&serde_yaml::to_string(&settings).unwrap()).unwrap();
        assert_eq!(settings, again);
    }

    #[test]
    fn unknown_keys_and_impossible_values_are_refused() {
        assert!(serde_yaml::from_str::<LinkSettings>("{dealy: 40ms}").is_err());
        assert!(serde_yaml::from_str::<LinkSettings>("{ge: [0.5]}").is_err());
        let bad = |change: fn(&mut LinkParams)| {
            let mut params = LinkParams::default();
            change(&mut params);
            params.validate().is_err()
        };
        assert!(bad(|p| p.loss = 1.5));
        assert!(bad(|p| p.duplicate = f64::NAN));
        assert!(bad(|p| p.delay = Time(61_000_000_000)));
        assert!(bad(|p| p.mtu = 20));
        assert!(!bad(|p| p.mtu = 1280));
    }
}
