//! A rate that depends on the time of day: `1M`, or a timetable like `08:00=1M,18:00=off`.

use bigup_core::protocol::units::parse_size;
use jiff::ZonedDateTime;
use std::fmt;
use std::str::FromStr;

/// Lowest limit, in bytes a second. Servers give up what comes slower than 1K a second.
pub const MIN_RATE: u64 = 4 << 10;

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// Rates, each from a time of day on until that of the next one; the last one until that of the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rates(Vec<Rate>);

/// A rate from a time of day on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    /// Minutes since midnight.
    from: u16,
    /// Bytes a second. `None`: no limit.
    most: Option<u64>,
}

impl From<u64> for Rates {
    /// So many bytes a second all day.
    fn from(bytes_per_second: u64) -> Rates {
        Rates(vec![Rate { from: 0, most: Some(bytes_per_second) }])
    }
}

impl Rates {
    /// The rate of this moment, by the clock and the time zone of this machine, in bytes a second. `None`: no limit.
    pub fn now(&self) -> Option<u64> {
        match self.0[..] {
            [only] => only.most,
            _ => {
                let now = ZonedDateTime::now();
                self.at(now.hour().unsigned_abs().into(), now.minute().unsigned_abs().into())
            }
        }
    }

    fn at(&self, hour: u16, minute: u16) -> Option<u64> {
        let now = hour * 60 + minute;
        let last = self.0.iter().rev().find(|rate| rate.from <= now).or(self.0.last());
        last.and_then(|rate| rate.most)
    }

    /// The lowest limit. `None`: there is none.
    pub fn lowest(&self) -> Option<u64> {
        self.0.iter().filter_map(|rate| rate.most).min()
    }
}

impl FromStr for Rates {
    type Err = String;

    fn from_str(text: &str) -> Result<Rates, String> {
        if !text.contains([':', '=', ',']) && text != "off" {
            return rate(text).map(Rates::from);
        }
        let mut rates = vec![];
        for entry in text.split(',') {
            let (time, most) = entry.trim().split_once('=').ok_or_else(|| {
                format!("{entry:?} has no time or no rate: a timetable is TIME=RATE,TIME=RATE, like 08:00=1M,18:00=off")
            })?;
            let most = if most == "off" { None } else { Some(rate(most)?) };
            rates.push(Rate { from: time_of_day(time)?, most });
        }
        rates.sort_by_key(|rate| rate.from);
        match rates.windows(2).find(|pair| pair[0].from == pair[1].from) {
            Some(pair) => Err(format!("{} is there twice", shown_time(pair[0].from))),
            None => Ok(Rates(rates)),
        }
    }
}

fn rate(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        rate if rate < MIN_RATE => Err(format!("{rate} bytes a second are too few: at least {MIN_RATE}")),
        rate => Ok(rate),
    }
}

fn time_of_day(text: &str) -> Result<u16, String> {
    let digits = |text: &str| {
        let is_number = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| text.parse::<u16>().ok()).flatten()
    };
    let parts = text.split_once(':').and_then(|(hour, minute)| Some((digits(hour)?, digits(minute)?)));
    match parts {
        Some((hour, minute)) if hour * 60 + minute < DAY && minute < 60 => Ok(hour * 60 + minute),
        _ => Err(format!("{text:?} is no time of day from 00:00 to 23:59")),
    }
}

fn shown_time(minutes: u16) -> String {
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.0.iter().map(|Rate { from, most }| {
            format!("{}={}", shown_time(*from), most.map_or_else(|| "off".to_owned(), |most| most.to_string()))
        });
        f.write_str(&entries.collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_of_a_time_is_that_of_the_last_entry_before_it() {
        let rates: Rates = "18:30=off, 08:00=1M,12:00=4K".parse().unwrap();
        for (hour, minute, expected) in [
            (0, 0, None),
            (7, 59, None),
            (8, 0, Some(1 << 20)),
            (11, 59, Some(1 << 20)),
            (12, 0, Some(4 << 10)),
            (18, 29, Some(4 << 10)),
            (18, 30, None),
            (23, 59, None),
        ] {
            assert_eq!(rates.at(hour, minute), expected, "{hour}:{minute}");
        }
        assert_eq!((rates.lowest(), rates.to_string()), (Some(4096), "08:00=1048576,12:00=4096,18:30=off".to_owned()));
        let always: Rates = "10M".parse().unwrap();
        assert_eq!((always.now(), always.lowest()), (Some(10 << 20), Some(10 << 20)));
        assert_eq!("03:00=off".parse::<Rates>().unwrap().now(), None);
    }

    #[test]
    fn what_is_no_timetable_says_why() {
        for (text, says) in [
            ("1", "1 bytes a second are too few: at least 4096"),
            ("08:00=1", "too few"),
            ("08:00=1M,18:00", "\"18:00\" has no time or no rate"),
            ("off", "08:00=1M,18:00=off"),
            ("08:00", "08:00=1M,18:00=off"),
            ("8:00=1M", "\"8:00\" is no time of day"),
            ("24:00=1M", "no time of day"),
            ("08:60=1M", "no time of day"),
            ("08:00=1M,08:00=2M", "08:00 is there twice"),
            ("08:00=fast", "fast"),
        ] {
            let refused = text.parse::<Rates>().unwrap_err();
            assert!(refused.contains(says), "{text}: {refused}");
        }
    }
}
