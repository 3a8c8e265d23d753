//! The bodies of the fuzz targets on seeded mutations, so that every test run fuzzes a little, always the same way.

use formats::conformance::Random;

#[path = "../../../fuzz/bodies.rs"]
mod bodies;

const JSON: &[&[u8]] = &[
    br#"{"a":1,"s":"x","t":"2020-01-31 23:59:59.123","f":1.5,"d":2.25,"b":"Zm9v","n":7,"skipped":[1,{"k":null}]}"#,
    br#"{"n":-1,"l":[{"x":"2020-01-31","y":true},null,{}],"m":{"k":1e3,"\u006b":2},"r":{"y":false,"z":[[]]}}"#,
    br#"{"n":0,"t":1580515199123,"s":"\ud83d\ude00 \"quoted\"","a":"12","d":"1e2","f":"NaN"}"#,
    b"\xef\xbb\xbf",
    b"\r\n",
];
const CSV: &[&[u8]] = &[
    b"1,x,2020-01-31 23:59:59.123,1.5,2.25,Zm9v,7\n",
    b",\"a \"\"quoted\"\"\nfield, long\",,,,,-1\r\n",
    b"\"1\",,\"\",NaN,1e2,\"\",\"0\"\n",
    b"\xef\xbb\xbf",
    b"\n",
];

fn run(body: fn(&[u8]), seeds: &[&[u8]], alphabet: &[u8], rounds: usize) {
    let mut random = Random(42);
    let mut below = |limit| random.below(limit);
    for _ in 0..rounds {
        let mut data = vec![below(256) as u8, below(256) as u8];
        for _ in 0..below(5) {
            data.extend_from_slice(seeds[below(seeds.len())]);
            if below(2) == 0 {
                data.push(b'\n');
            }
        }
        for _ in 0..below(4) {
            let at = 2 + below(data.len() - 1);
            match below(3) {
                0 => data.insert(at, alphabet[below(alphabet.len())]),
                1 if at < data.len() => drop(data.remove(at)),
                _ if at < data.len() => data[at] = alphabet[below(alphabet.len())],
                _ => {}
            }
        }
        body(&data);
    }
}

#[test]
fn json_scanner() {
    run(bodies::json_scanner, JSON, b"{}[]\",:\\ \t\r\n0123456789eE+-.truefalsnud8\x00\x1f\x80\xc3\xa9\xff", 10_000);
}

#[test]
fn csv() {
    run(bodies::csv, CSV, b"\"\"\",,\n\r0123456789 a\x00\xc3\xa9\xff", 10_000);
}
