//! Events of an online auction in the manner of the Nexmark benchmark: people, auctions and bids.
//!
//! Of 50 events, 1 is a person, 3 are auctions and 46 are bids. An event follows from its number, the rate and the seed
//! alone, with integer arithmetic only: any slice can be made by itself, anywhere, and is always the same. Ids, hot
//! items and sizes are distributed as in the benchmark's public definition (Tucker, Tufte, Papadimos, Maier: NEXMark, 2002,
//! with the parameters of its Beam and Flink editions); the texts are our own.
//!
//! The rate is part of a query's meaning: it says how many events one window holds.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int32Array, Int64Array, Int64Builder, NullBufferBuilder, RecordBatch, StringBuilder, StructArray,
    TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

/// Time of the first event: 2023-11-14 22:13:20 UTC, in milliseconds since the Unix epoch.
pub const BASE_TIME_MS: i64 = 1_700_000_000_000;

/// 10 thousand events per second of event time: many windows, few events in each.
pub const RATE_1: u64 = 10_000;
/// 1 million events per second of event time: few windows, many events in each.
pub const RATE_2: u64 = 1_000_000;

const PERSONS: u64 = 1;
const AUCTIONS: u64 = 3;
const CYCLE: u64 = 50;

const FIRST_PERSON: u64 = 1_000;
const FIRST_AUCTION: u64 = 1_000;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u64 = 5;
/// Auctions that bids choose from, people that act, and how far ahead of what exists an id may be.
const AUCTIONS_IN_FLIGHT: u64 = 100;
const ACTIVE_PEOPLE: u64 = 1_000;
const ID_LEAD: u64 = 10;
/// One in so many goes to any auction, bidder, seller or channel; the others to a hot one.
const HOT_AUCTION_RATIO: u64 = 2;
const HOT_BIDDER_RATIO: u64 = 4;
const HOT_SELLER_RATIO: u64 = 4;
const HOT_CHANNEL_RATIO: u64 = 2;
/// So many neighbours share one hot item.
const HOT_GROUP: u64 = 100;
const CHANNELS: u64 = 10_000;
const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];

/// Mean sizes in bytes; `extra` fills an event up to about this.
const PERSON_BYTES: u64 = 200;
const AUCTION_BYTES: u64 = 500;
const BID_BYTES: u64 = 100;

const FIRST_NAMES: [&str; 11] =
    ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
const PLACES: [(&str, &str); 10] = [
    ("Phoenix", "AZ"),
    ("Los Angeles", "CA"),
    ("San Francisco", "CA"),
    ("Boise", "ID"),
    ("Portland", "OR"),
    ("Bend", "OR"),
    ("Redmond", "WA"),
    ("Seattle", "WA"),
    ("Kent", "WA"),
    ("Cheyenne", "WY"),
];

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Person,
    Auction,
    Bid,
}

impl Kind {
    /// The kind of the event with this number.
    pub fn of(event: u64) -> Kind {
        match event % CYCLE {
            offset if offset < PERSONS => Kind::Person,
            offset if offset < PERSONS + AUCTIONS => Kind::Auction,
            _ => Kind::Bid,
        }
    }

    /// The value of the column `event_type`.
    pub fn number(self) -> i32 {
        match self {
            Kind::Person => 0,
            Kind::Auction => 1,
            Kind::Bid => 2,
        }
    }
}

/// Makes events by their number.
pub struct Generator {
    rate: u64,
    seed: u64,
    /// The address of each channel's page, by the channel's number; the hot ones come last.
    urls: Vec<String>,
    prices: PriceTable,
}

impl Generator {
    /// `rate`: events per second of event time, at least 1.
    pub fn new(rate: u64, seed: u64) -> Generator {
        assert!(rate > 0, "the rate of events must be above 0");
        let urls = (0..CHANNELS + HOT_CHANNELS.len() as u64).map(|channel| url(channel, seed)).collect();
        Generator { rate, seed, urls, prices: PriceTable::new() }
    }

    /// The time of an event in milliseconds since the Unix epoch. Never falls from one event to the next.
    pub fn time_ms(&self, event: u64) -> i64 {
        BASE_TIME_MS
            + i64::try_from(u128::from(event) * 1_000 / u128::from(self.rate)).expect("event times fit into i64")
    }

    /// The bids among the events of a range, in order, with the columns of [`bid_schema`].
    pub fn bids(&self, events: Range<u64>) -> RecordBatch {
        let mut bids =
            Bids::with_capacity(usize::try_from(events.end - events.start).expect("a batch fits into memory"));
        for event in events.filter(|event| Kind::of(*event) == Kind::Bid) {
            bids.push(self, event);
        }
        RecordBatch::try_new(bid_schema(), bids.finish()).expect("bids have the columns of their schema")
    }

    /// All events of a range, in order, with the columns of [`event_schema`]: each row has one of its three records.
    pub fn events(&self, events: Range<u64>) -> RecordBatch {
        let rows = usize::try_from(events.end - events.start).expect("a batch fits into memory");
        let (mut kinds, mut persons, mut auctions) =
            (Vec::with_capacity(rows), Persons::default(), Auctions::default());
        let mut bids = Bids::with_capacity(rows);
        let mut present = [(); 3].map(|()| NullBufferBuilder::new(rows));
        for event in events {
            let kind = Kind::of(event);
            kinds.push(kind.number());
            for (index, present) in present.iter_mut().enumerate() {
                present.append(index == kind.number() as usize);
            }
            match kind {
                Kind::Person => persons.push(self, event),
                _ => persons.push_null(),
            }
            match kind {
                Kind::Auction => auctions.push(self, event),
                _ => auctions.push_null(),
            }
            match kind {
                Kind::Bid => bids.push(self, event),
                _ => bids.push_null(),
            }
        }
        let [is_person, is_auction, is_bid] = &mut present;
        let records: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(kinds)),
            Arc::new(StructArray::new(person_fields(), persons.finish(), is_person.finish())),
            Arc::new(StructArray::new(auction_fields(), auctions.finish(), is_auction.finish())),
            Arc::new(StructArray::new(bid_fields(), bids.finish(), is_bid.finish())),
        ];
        RecordBatch::try_new(event_schema(), records).expect("events have the columns of their schema")
    }

    /// Random numbers of one event, the same for the same event and seed.
    fn dice(&self, event: u64) -> Dice {
        // Multiplied by an odd constant, so that the streams of neighbouring events do not overlap.
        Dice(self.seed.wrapping_add(event.wrapping_mul(0xd134_2543_de82_ef95)))
    }
}

/// `auction, bidder, price, channel, url, dateTime, extra`
pub fn bid_schema() -> SchemaRef {
    Arc::new(Schema::new(bid_fields()))
}

/// `event_type` (0 person, 1 auction, 2 bid) and one record for each of them, of which one is not NULL.
pub fn event_schema() -> SchemaRef {
    let record = |name: &str, fields: Fields| Field::new(name, DataType::Struct(fields), true);
    Arc::new(Schema::new(vec![
        Field::new("event_type", DataType::Int32, true),
        record("person", person_fields()),
        record("auction", auction_fields()),
        record("bid", bid_fields()),
    ]))
}

fn fields(columns: &[(&str, DataType)]) -> Fields {
    columns.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect()
}

fn milliseconds() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, None)
}

fn bid_fields() -> Fields {
    fields(&[
        ("auction", DataType::Int64),
        ("bidder", DataType::Int64),
        ("price", DataType::Int64),
        ("channel", DataType::Utf8),
        ("url", DataType::Utf8),
        ("dateTime", milliseconds()),
        ("extra", DataType::Utf8),
    ])
}

fn person_fields() -> Fields {
    fields(&[
        ("id", DataType::Int64),
        ("name", DataType::Utf8),
        ("emailAddress", DataType::Utf8),
        ("creditCard", DataType::Utf8),
        ("city", DataType::Utf8),
        ("state", DataType::Utf8),
        ("dateTime", milliseconds()),
        ("extra", DataType::Utf8),
    ])
}

fn auction_fields() -> Fields {
    fields(&[
        ("id", DataType::Int64),
        ("itemName", DataType::Utf8),
        ("description", DataType::Utf8),
        ("initialBid", DataType::Int64),
        ("reserve", DataType::Int64),
        ("dateTime", milliseconds()),
        ("expires", milliseconds()),
        ("seller", DataType::Int64),
        ("category", DataType::Int64),
        ("extra", DataType::Utf8),
    ])
}

/// The number of the last person that exists when an event happens, counted from 0.
fn last_person(event: u64) -> u64 {
    event / CYCLE * PERSONS
}

/// The number of the last auction that exists when an event happens, counted from 0.
fn last_auction(event: u64) -> u64 {
    let before = event / CYCLE * AUCTIONS;
    match event % CYCLE {
        offset if offset < PERSONS => before.saturating_sub(1),
        offset => before + (offset - PERSONS).min(AUCTIONS - 1),
    }
}

fn any_auction(event: u64, dice: &mut Dice) -> u64 {
    let last = last_auction(event);
    let first = last.saturating_sub(AUCTIONS_IN_FLIGHT);
    FIRST_AUCTION + first + dice.below(last - first + 1 + ID_LEAD)
}

fn any_person(event: u64, dice: &mut Dice) -> u64 {
    let people = last_person(event) + 1;
    let active = people.min(ACTIVE_PEOPLE);
    FIRST_PERSON + people - active + dice.below(active + ID_LEAD)
}

/// A number of the database as a BIGINT.
fn bigint(number: u64) -> i64 {
    i64::try_from(number).expect("ids and prices fit into i64")
}

struct Bids {
    auction: Int64Builder,
    bidder: Int64Builder,
    price: Int64Builder,
    channel: StringBuilder,
    url: StringBuilder,
    time: Vec<Option<i64>>,
    extra: StringBuilder,
    text: String,
}

impl Bids {
    fn with_capacity(rows: usize) -> Bids {
        let integers = || Int64Builder::with_capacity(rows);
        let texts = |bytes: usize| StringBuilder::with_capacity(rows, rows * bytes);
        Bids {
            auction: integers(),
            bidder: integers(),
            price: integers(),
            channel: texts(10),
            url: texts(60),
            time: Vec::with_capacity(rows),
            extra: texts(70),
            text: String::new(),
        }
    }

    fn push(&mut self, generator: &Generator, event: u64) {
        let mut dice = generator.dice(event);
        let auction = match dice.below(HOT_AUCTION_RATIO) {
            0 => any_auction(event, &mut dice),
            _ => FIRST_AUCTION + last_auction(event) / HOT_GROUP * HOT_GROUP,
        };
        let bidder = match dice.below(HOT_BIDDER_RATIO) {
            0 => any_person(event, &mut dice),
            _ => FIRST_PERSON + last_person(event) / HOT_GROUP * HOT_GROUP + 1,
        };
        let price = generator.prices.draw(&mut dice);
        let channel = match dice.below(HOT_CHANNEL_RATIO) {
            0 => dice.below(CHANNELS),
            _ => CHANNELS + dice.below(HOT_CHANNELS.len() as u64),
        };
        self.auction.append_value(bigint(auction));
        self.bidder.append_value(bigint(bidder));
        self.price.append_value(bigint(price));
        self.text.clear();
        push_channel_name(channel, &mut self.text);
        self.channel.append_value(&self.text);
        self.url.append_value(&generator.urls[usize::try_from(channel).expect("a channel is an index")]);
        self.time.push(Some(generator.time_ms(event)));
        self.text.clear();
        // Three integers and a time stand beside it.
        dice.push_padding(BID_BYTES - 32, &mut self.text);
        self.extra.append_value(&self.text);
    }

    fn push_null(&mut self) {
        self.auction.append_null();
        self.bidder.append_null();
        self.price.append_null();
        self.channel.append_null();
        self.url.append_null();
        self.time.push(None);
        self.extra.append_null();
    }

    fn finish(mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(self.auction.finish()),
            Arc::new(self.bidder.finish()),
            Arc::new(self.price.finish()),
            Arc::new(self.channel.finish()),
            Arc::new(self.url.finish()),
            Arc::new(TimestampMillisecondArray::from(self.time)),
            Arc::new(self.extra.finish()),
        ]
    }
}

#[derive(Default)]
struct Persons {
    id: Vec<Option<i64>>,
    /// name, emailAddress, creditCard, city, state
    texts: [StringBuilder; 5],
    time: Vec<Option<i64>>,
    extra: StringBuilder,
}

impl Persons {
    fn push(&mut self, generator: &Generator, event: u64) {
        let mut dice = generator.dice(event);
        self.id.push(Some(bigint(FIRST_PERSON + last_person(event))));
        let name = format!("{} {}", dice.pick(&FIRST_NAMES), dice.pick(&LAST_NAMES));
        let (mut email, mut host, mut card) = (String::new(), String::new(), String::new());
        dice.push_letters(7, &mut email);
        dice.push_letters(5, &mut host);
        write!(email, "@{host}.com").expect("a String takes any text");
        for block in 0..4 {
            let space = if block > 0 { " " } else { "" };
            write!(card, "{space}{:04}", dice.below(10_000)).expect("a String takes any text");
        }
        let (city, state) = dice.pick(&PLACES);
        let used = 16 + name.len() + email.len() + card.len() + city.len() + state.len();
        for (column, text) in self.texts.iter_mut().zip([name.as_str(), &email, &card, city, state]) {
            column.append_value(text);
        }
        self.time.push(Some(generator.time_ms(event)));
        let mut extra = String::new();
        dice.push_padding(PERSON_BYTES.saturating_sub(used as u64), &mut extra);
        self.extra.append_value(extra);
    }

    fn push_null(&mut self) {
        self.id.push(None);
        self.texts.iter_mut().for_each(StringBuilder::append_null);
        self.time.push(None);
        self.extra.append_null();
    }

    fn finish(mut self) -> Vec<ArrayRef> {
        let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(self.id))];
        columns.extend(self.texts.iter_mut().map(|text| Arc::new(text.finish()) as ArrayRef));
        columns.push(Arc::new(TimestampMillisecondArray::from(self.time)));
        columns.push(Arc::new(self.extra.finish()));
        columns
    }
}

#[derive(Default)]
struct Auctions {
    id: Vec<Option<i64>>,
    name: StringBuilder,
    description: StringBuilder,
    initial: Vec<Option<i64>>,
    reserve: Vec<Option<i64>>,
    time: Vec<Option<i64>>,
    expires: Vec<Option<i64>>,
    seller: Vec<Option<i64>>,
    category: Vec<Option<i64>>,
    extra: StringBuilder,
}

impl Auctions {
    fn push(&mut self, generator: &Generator, event: u64) {
        let mut dice = generator.dice(event);
        let (mut name, mut description) = (String::new(), String::new());
        let (name_letters, description_letters) = (3 + dice.below(17), 20 + dice.below(80));
        dice.push_letters(name_letters, &mut name);
        dice.push_letters(description_letters, &mut description);
        let initial = generator.prices.draw(&mut dice);
        let seller = match dice.below(HOT_SELLER_RATIO) {
            0 => any_person(event, &mut dice),
            _ => FIRST_PERSON + last_person(event) / HOT_GROUP * HOT_GROUP,
        };
        let now = generator.time_ms(event);
        // So long that about AUCTIONS_IN_FLIGHT auctions are open at any time.
        let horizon = generator.time_ms(event + AUCTIONS_IN_FLIGHT * CYCLE / AUCTIONS) - now;
        let open_ms = 1 + bigint(dice.below(u64::try_from(horizon * 2).expect("times do not fall").max(1)));
        self.id.push(Some(bigint(FIRST_AUCTION + last_auction(event))));
        self.initial.push(Some(bigint(initial)));
        self.reserve.push(Some(bigint(initial + generator.prices.draw(&mut dice))));
        self.time.push(Some(now));
        self.expires.push(Some(now + open_ms));
        self.seller.push(Some(bigint(seller)));
        self.category.push(Some(bigint(FIRST_CATEGORY + dice.below(CATEGORIES))));
        let mut extra = String::new();
        dice.push_padding(AUCTION_BYTES.saturating_sub(56 + name_letters + description_letters), &mut extra);
        self.name.append_value(name);
        self.description.append_value(description);
        self.extra.append_value(extra);
    }

    fn push_null(&mut self) {
        for column in [&mut self.id, &mut self.initial, &mut self.reserve, &mut self.time, &mut self.expires] {
            column.push(None);
        }
        self.seller.push(None);
        self.category.push(None);
        for column in [&mut self.name, &mut self.description, &mut self.extra] {
            column.append_null();
        }
    }

    fn finish(mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(Int64Array::from(self.id)),
            Arc::new(self.name.finish()),
            Arc::new(self.description.finish()),
            Arc::new(Int64Array::from(self.initial)),
            Arc::new(Int64Array::from(self.reserve)),
            Arc::new(TimestampMillisecondArray::from(self.time)),
            Arc::new(TimestampMillisecondArray::from(self.expires)),
            Arc::new(Int64Array::from(self.seller)),
            Arc::new(Int64Array::from(self.category)),
            Arc::new(self.extra.finish()),
        ]
    }
}

fn push_channel_name(channel: u64, text: &mut String) {
    match channel.checked_sub(CHANNELS) {
        Some(hot) => text.push_str(HOT_CHANNELS[usize::try_from(hot).expect("one of four")]),
        None => {
            text.push_str("channel-");
            push_decimal(channel, text);
        }
    }
}

fn push_decimal(mut number: u64, text: &mut String) {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.push_str(std::str::from_utf8(&digits[start..]).expect("digits are ASCII"));
}

/// Nine of ten pages name their channel by a number; the hot ones always have the same pages.
fn url(channel: u64, seed: u64) -> String {
    let mut dice = Dice(seed ^ (channel + 1).wrapping_mul(0x9fb2_1c65_1e98_df25));
    let mut text = String::from("https://www.nexmark.com/");
    for _ in 0..3 {
        dice.push_letters(5, &mut text);
        text.push('/');
    }
    text.push_str("item.htm?query=1");
    if channel >= CHANNELS || dice.below(10) > 0 {
        text.push_str("&channel_id=");
        push_decimal(dice.below(1 << 31), &mut text);
    }
    text
}

/// Prices from 100 to 100 million, as many in each decade: 100 * 10^(6 u) for a uniform u, by a table.
struct PriceTable([u64; PriceTable::STEPS + 1]);

impl PriceTable {
    const STEPS: usize = 6 * 64;

    fn new() -> PriceTable {
        // 10^(1/64) and the powers of it, in units of 2^-60.
        const ROOT: u128 = 1_195_156_395_579_392_703;
        let mut table = [100; PriceTable::STEPS + 1];
        for decade in 0..6 {
            let mut power = (100 * 10_u128.pow(decade)) << 60;
            for step in 0..64 {
                table[decade as usize * 64 + step] = u64::try_from(power >> 60).expect("a price fits into u64");
                power = (power >> 30) * (ROOT >> 30);
            }
        }
        table[PriceTable::STEPS] = 100_000_000;
        PriceTable(table)
    }

    fn draw(&self, dice: &mut Dice) -> u64 {
        let step = usize::try_from(dice.below(PriceTable::STEPS as u64)).expect("a step is an index");
        let (low, high) = (self.0[step], self.0[step + 1]);
        low + dice.below(high - low)
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `limit`; a product instead of a remainder, because it is quicker.
    fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.roll()) * u128::from(limit)) >> 64) as u64
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).expect("an index")]
    }

    fn push_letters(&mut self, count: u64, text: &mut String) {
        // Five bits per letter, twelve letters per draw.
        const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyzetaoin";
        let mut left = count;
        while left > 0 {
            let mut bits = self.roll();
            let now = left.min(12);
            let mut block = [0_u8; 12];
            for letter in &mut block {
                *letter = LETTERS[(bits & 31) as usize];
                bits >>= 5;
            }
            text.push_str(std::str::from_utf8(&block[..now as usize]).expect("letters are ASCII"));
            left -= now;
        }
    }

    /// Letters, as many as the mean on average, at most a fifth more or less.
    fn push_padding(&mut self, mean: u64, text: &mut String) {
        let fifth = mean / 5;
        let count = mean - fifth + self.below(2 * fifth + 1);
        self.push_letters(count, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray};
    use arrow::compute::concat_batches;
    use arrow::datatypes::{Int64Type, TimestampMillisecondType};
    use sha2::{Digest, Sha256};

    fn hash(batch: &RecordBatch) -> String {
        let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
        writer.write(batch).expect("a batch can be written");
        let digest = Sha256::digest(writer.into_inner());
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn slices_join_to_the_whole() {
        let generator = Generator::new(RATE_1, 0);
        let whole = generator.events(0..5_000);
        let slices = [0..1, 1..777, 777..4_001, 4_001..5_000].map(|range| generator.events(range));
        assert_eq!(concat_batches(&event_schema(), &slices).expect("one schema"), whole);
        let bids = [0..1, 1..777, 777..5_000].map(|range| generator.bids(range));
        assert_eq!(concat_batches(&bid_schema(), &bids).expect("one schema"), generator.bids(0..5_000));
        // Also far out, and from another instance.
        assert_eq!(Generator::new(RATE_1, 0).bids(1 << 40..(1 << 40) + 100), generator.bids(1 << 40..(1 << 40) + 100));
        assert_ne!(Generator::new(RATE_1, 1).bids(0..100), generator.bids(0..100));
    }

    /// The workload must not change unseen: figures of different days are compared.
    #[test]
    fn the_workload_is_the_one_that_was_measured() {
        let generator = Generator::new(RATE_1, 0);
        let hashes =
            [generator.bids(0..10_000), generator.events(0..10_000), Generator::new(RATE_2, 0).bids(900_000..901_000)];
        assert_eq!(hashes.each_ref().map(hash), ["4e0ef81301a2693a", "af4e6dc3cf81c491", "d175d6a10b1ef51d"]);
    }

    #[test]
    fn kinds_times_and_ids_are_as_the_benchmark_has_them() {
        let generator = Generator::new(RATE_1, 0);
        let events = generator.events(0..100_000);
        let count = |column: usize| events.num_rows() - events.column(column).null_count();
        assert_eq!((count(1), count(2), count(3)), (2_000, 6_000, 92_000));

        let bids = generator.bids(0..100_000);
        let times = bids.column(5).as_primitive::<TimestampMillisecondType>().values();
        assert_eq!((times[0], times[times.len() - 1]), (BASE_TIME_MS, BASE_TIME_MS + 9_999));
        assert!(times.is_sorted());

        let auctions = bids.column(0).as_primitive::<Int64Type>().values();
        assert!(auctions.iter().all(|auction| (1_000..1_000 + 6_000 + 10).contains(auction)));
        let hot = auctions.iter().filter(|auction| **auction % 100 == 0).count();
        assert!(
            (45_000..48_000).contains(&hot),
            "half of the bids and one percent of the others go to hot auctions: {hot}"
        );

        let prices = bids.column(2).as_primitive::<Int64Type>().values();
        assert!(prices.iter().all(|price| (100..100_000_000).contains(price)));
        for decade in 0..6 {
            let range = 100 * 10_i64.pow(decade)..1_000 * 10_i64.pow(decade);
            let share = prices.iter().filter(|price| range.contains(price)).count();
            assert!((14_500..16_200).contains(&share), "a sixth of the prices is in {range:?}: {share}");
        }
        let extra: usize = bids.column(6).as_string::<i32>().iter().flatten().map(str::len).sum();
        assert!((66..=70).contains(&(extra / bids.num_rows())));
    }

    #[test]
    fn auctions_end_after_they_begin_and_have_an_existing_seller() {
        let events = Generator::new(RATE_1, 0).events(0..50_000);
        let auctions = events.column(2).as_struct();
        let (begin, end) = (
            auctions.column(5).as_primitive::<TimestampMillisecondType>(),
            auctions.column(6).as_primitive::<TimestampMillisecondType>(),
        );
        let seller = auctions.column(7).as_primitive::<Int64Type>();
        for row in (0..auctions.len()).filter(|row| auctions.is_valid(*row)) {
            assert!(begin.value(row) < end.value(row));
            assert!((1_000..2_000 + 10).contains(&seller.value(row)));
        }
    }
}
