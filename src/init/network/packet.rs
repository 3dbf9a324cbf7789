//! Messages of DHCP for IPv4.
//!
//! Source: RFC 2131 and 2132; 3396 (an option in several parts), 3442 (classless routes). Of what comes, nothing is
//! believed that does not fit: a message is at most [`LARGEST`] bytes, an option ends within it, lists are cut.

use std::net::Ipv4Addr;

use crate::boot::lease::{Lease, Route, prefix_of};

/// Largest message that is read, in bytes: more than an Ethernet frame has.
pub(super) const LARGEST: usize = 2048;
/// Smallest message that every server takes: that of BOOTP (RFC 1542, section 2.1).
const SMALLEST: usize = 300;
/// Bytes before the options, with the cookie.
const HEAD: usize = 240;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// As many routes and servers as are taken.
const MOST: usize = 16;

/// How long an address is asked for: a day, as no lease is renewed while the image is fetched.
const LEASE_SECONDS: u32 = 86_400;

/// Options by number.
mod option {
    pub(super) const MASK: u8 = 1;
    pub(super) const ROUTERS: u8 = 3;
    pub(super) const DNS: u8 = 6;
    pub(super) const DOMAIN: u8 = 15;
    pub(super) const MTU: u8 = 26;
    pub(super) const ADDRESS: u8 = 50;
    pub(super) const LEASE: u8 = 51;
    pub(super) const OVERLOAD: u8 = 52;
    pub(super) const TYPE: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const WANTED: u8 = 55;
    pub(super) const LARGEST: u8 = 57;
    pub(super) const VENDOR: u8 = 60;
    pub(super) const ROUTES: u8 = 121;
    pub(super) const END: u8 = 255;
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Who has an address for me?
    Discover,
    /// One that may be had.
    Offer,
    /// That one, please.
    Request,
    /// It is yours.
    Ack,
    /// It is not.
    Nak,
    /// I no longer need it.
    Release,
}

impl Kind {
    const fn number(self) -> u8 {
        match self {
            Self::Discover => 1,
            Self::Offer => 2,
            Self::Request => 3,
            Self::Ack => 5,
            Self::Nak => 6,
            Self::Release => 7,
        }
    }

    fn of(number: u8) -> Option<Self> {
        [Self::Offer, Self::Ack, Self::Nak].into_iter().find(|kind| kind.number() == number)
    }
}

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub kind: Kind,
    /// Names the exchange.
    pub number: u32,
    /// Seconds since it began.
    pub seconds: u16,
    /// The card's own address.
    pub card: [u8; 6],
    /// The address and the server that offered it.
    pub offered: Option<(Ipv4Addr, Ipv4Addr)>,
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub kind: Kind,
    pub server: Ipv4Addr,
    /// As offered; with a [`Kind::Nak`] it means nothing.
    pub lease: Lease,
}

impl Question {
    /// The message. A lease that is given back is in use meanwhile; else the answer must come as a broadcast, since the
    /// card has no address to send it to.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let is_release = self.kind == Kind::Release;
        let mut bytes = vec![0; HEAD];
        // BOOTREQUEST; Ethernet, whose addresses have six bytes.
        bytes[..3].copy_from_slice(&[1, 1, 6]);
        bytes[4..8].copy_from_slice(&self.number.to_be_bytes());
        bytes[8..10].copy_from_slice(&self.seconds.to_be_bytes());
        if !is_release {
            bytes[10] = 0x80;
        }
        if let Some((address, _)) = self.offered.filter(|_| is_release) {
            bytes[12..16].copy_from_slice(&address.octets());
        }
        bytes[28..34].copy_from_slice(&self.card);
        bytes[236..].copy_from_slice(&COOKIE);
        let mut add = |number: u8, body: &[u8]| {
            bytes.extend([number, u8::try_from(body.len()).unwrap_or(u8::MAX)]);
            bytes.extend(body);
        };
        add(option::TYPE, &[self.kind.number()]);
        if let Some((address, server)) = self.offered {
            if !is_release {
                add(option::ADDRESS, &address.octets());
            }
            add(option::SERVER, &server.octets());
        }
        if !is_release {
            let wanted =
                [option::ROUTES, option::MASK, option::ROUTERS, option::DNS, option::DOMAIN, option::MTU];
            add(option::WANTED, &wanted);
            add(option::LEASE, &LEASE_SECONDS.to_be_bytes());
            add(option::LARGEST, &1472_u16.to_be_bytes());
            add(option::VENDOR, b"keller");
        }
        bytes.push(option::END);
        bytes.resize(bytes.len().max(SMALLEST), 0);
        bytes
    }
}

impl Answer {
    /// Reads the answer to the exchange `number` of `card`; none in what is another's or makes no sense.
    pub(super) fn parse(bytes: &[u8], number: u32, card: [u8; 6]) -> Option<Self> {
        let head = bytes.get(..HEAD).filter(|_| bytes.len() <= LARGEST)?;
        let is_mine = head[..3] == [2, 1, 6]
            && head[4..8] == number.to_be_bytes()
            && head[28..34] == card
            && head[236..] == COOKIE;
        if !is_mine {
            return None;
        }
        let options = Options::parse(bytes);
        let kind = Kind::of(*options.get(option::TYPE).first()?)?;
        // Where a server leaves its name out, it is the one that the message is from.
        let server = options.addresses(option::SERVER).next().or_else(|| address(&head[20..24]))?;
        let address = address(&head[16..20]).unwrap_or(Ipv4Addr::UNSPECIFIED);
        if kind != Kind::Nak && !is_host(address) {
            return None;
        }
        let lease = options.lease(address, server)?;
        Some(Self { kind, server, lease })
    }
}

/// Whether a machine may have this address.
fn is_host(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first != 127 && first < 224
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))
}

/// The options of a message, those of one number put together.
struct Options(Vec<(u8, Vec<u8>)>);

impl Options {
    fn parse(bytes: &[u8]) -> Self {
        let mut options = Self(Vec::new());
        options.read(&bytes[HEAD..]);
        // Further ones in the fields for the file's and the server's name.
        let overload = options.get(option::OVERLOAD).first().copied().unwrap_or_default();
        if overload & 1 != 0 {
            options.read(&bytes[108..236]);
        }
        if overload & 2 != 0 {
            options.read(&bytes[44..108]);
        }
        options
    }

    fn read(&mut self, mut rest: &[u8]) {
        while let [number, tail @ ..] = rest {
            match (*number, tail) {
                (option::END, _) => return,
                (0, tail) => rest = tail,
                (number, [length, tail @ ..]) => {
                    let Some((body, tail)) = tail.split_at_checked(usize::from(*length)) else { return };
                    match self.0.iter_mut().find(|(known, _)| *known == number) {
                        Some((_, known)) => known.extend(body),
                        None => self.0.push((number, body.to_vec())),
                    }
                    rest = tail;
                }
                _ => return,
            }
        }
    }

    fn get(&self, number: u8) -> &[u8] {
        self.0.iter().find(|(known, _)| *known == number).map_or(&[], |(_, body)| body)
    }

    fn addresses(&self, number: u8) -> impl Iterator<Item = Ipv4Addr> {
        self.get(number).chunks_exact(4).take(MOST).filter_map(address).filter(|address| is_host(*address))
    }

    fn lease(&self, address: Ipv4Addr, server: Ipv4Addr) -> Option<Lease> {
        let mask = match self.get(option::MASK) {
            [] => None,
            bytes => Some(prefix_of(self::address(bytes)?)?),
        };
        let routes = self.routes();
        let routes = match routes.is_empty() {
            // RFC 3442: whoever takes the routes passes over the routers.
            true => self.addresses(option::ROUTERS).take(1).map(Route::default_via).collect(),
            false => routes,
        };
        let mtu = <[u8; 2]>::try_from(self.get(option::MTU)).ok().map(u16::from_be_bytes);
        Some(Lease {
            address,
            prefix: mask.filter(|prefix| *prefix > 0).unwrap_or_else(|| class(address)),
            routes,
            dns: self.addresses(option::DNS).take(3).collect(),
            domain: domain(self.get(option::DOMAIN)),
            // RFC 791: every network takes 576 bytes.
            mtu: mtu.filter(|mtu| *mtu >= 576),
            server: Some(server),
        })
    }

    fn routes(&self) -> Vec<Route> {
        let (mut routes, mut rest) = (Vec::new(), self.get(option::ROUTES));
        while let [prefix @ 0..=32, tail @ ..] = rest {
            let significant = usize::from(prefix.div_ceil(8));
            let Some((to, tail)) = tail.split_at_checked(significant) else { break };
            let Some((router, tail)) = tail.split_at_checked(4) else { break };
            let mut octets = [0; 4];
            octets[..significant].copy_from_slice(to);
            let via = address(router).filter(|router| *router != Ipv4Addr::UNSPECIFIED);
            let bits = Ipv4Addr::from(octets).to_bits() & crate::boot::lease::mask(*prefix).to_bits();
            routes.push(Route { to: Ipv4Addr::from_bits(bits), prefix: *prefix, via });
            rest = tail;
            if routes.len() == MOST {
                break;
            }
        }
        routes
    }
}

/// The mask that an address had before there were masks.
fn class(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..=127 => 8,
        128..=191 => 16,
        _ => 24,
    }
}

/// A name for resolv.conf, into which nothing else gets this way.
fn domain(bytes: &[u8]) -> Option<String> {
    let text = str::from_utf8(bytes).ok()?.trim_end_matches(['\0', '.']);
    let is_name = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    (!text.is_empty() && text.len() < 254 && is_name).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARD: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    fn answer(kind: u8, options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEAD];
        bytes[..3].copy_from_slice(&[2, 1, 6]);
        bytes[4..8].copy_from_slice(&7_u32.to_be_bytes());
        bytes[16..20].copy_from_slice(&[10, 0, 2, 15]);
        bytes[20..24].copy_from_slice(&[10, 0, 2, 2]);
        bytes[28..34].copy_from_slice(&CARD);
        bytes[236..].copy_from_slice(&COOKIE);
        bytes.extend([53, 1, kind]);
        bytes.extend(options);
        bytes.push(255);
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Answer> {
        Answer::parse(bytes, 7, CARD)
    }

    #[test]
    fn an_offer_is_read() {
        let options = [
            &[1, 4, 255, 255, 255, 0, 3, 8, 10, 0, 2, 2, 10, 0, 2, 1, 6, 4, 10, 0, 2, 3][..],
            &[15, 4, b'a', b'.', b'b', 0, 26, 2, 5, 0x78, 54, 4, 10, 0, 2, 4],
        ];
        let offer = parse(&answer(2, &options.concat())).unwrap();
        assert_eq!((offer.kind, offer.server), (Kind::Offer, Ipv4Addr::new(10, 0, 2, 4)));
        assert_eq!(offer.lease.routes, [Route::default_via(Ipv4Addr::new(10, 0, 2, 2))]);
        assert_eq!((offer.lease.mtu, offer.lease.domain.as_deref()), (Some(1400), Some("a.b")));
        let shown = offer.lease.to_string();
        assert_eq!(shown, "10.0.2.15/24 by DHCP from 10.0.2.4, router 10.0.2.2, DNS 10.0.2.3");
    }

    #[test]
    fn routes_come_before_routers() {
        // 10.1/16 by 10.0.2.9, 192.168.7.1/32 on the wire, all else by 10.0.2.8; in two parts.
        let options = [
            &[3, 4, 10, 0, 2, 2, 121, 9, 16, 10, 1, 10, 0, 2, 9, 32, 192][..],
            &[121, 12, 168, 7, 1, 0, 0, 0, 0, 0, 10, 0, 2, 8],
        ];
        let routes = parse(&answer(5, &options.concat())).unwrap().lease.routes;
        let shown: Vec<_> =
            routes.iter().map(|route| (route.to.to_string(), route.prefix, route.via)).collect();
        let via = |last| Some(Ipv4Addr::new(10, 0, 2, last));
        let expected = [("10.1.0.0", 16, via(9)), ("192.168.7.1", 32, None), ("0.0.0.0", 0, via(8))];
        assert_eq!(shown, expected.map(|(to, prefix, via)| (to.to_owned(), prefix, via)));
    }

    #[test]
    fn what_is_anothers_or_makes_no_sense_is_passed_over() {
        let good = answer(2, &[1, 4, 255, 255, 255, 0]);
        assert!(parse(&good).is_some());
        assert_eq!(Answer::parse(&good, 8, CARD), None);
        assert_eq!(Answer::parse(&good, 7, [0; 6]), None);
        let mut question = good.clone();
        question[0] = 1;
        assert_eq!(parse(&question), None);
        for bad in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255]] {
            let mut bytes = good.clone();
            bytes[16..20].copy_from_slice(&bad);
            assert_eq!(parse(&bytes), None, "{bad:?}");
        }
        assert_eq!(parse(&answer(2, &[1, 4, 255, 0, 255, 0])), None);
        assert_eq!(parse(&answer(9, &[])), None);
        let name = parse(&answer(2, b"\x0f\x09a\nsearch x")).unwrap().lease;
        assert_eq!((name.domain, name.prefix), (None, 8));
        assert!(parse(&answer(6, &[])).is_some_and(|nak| nak.kind == Kind::Nak));
    }

    #[test]
    fn no_message_makes_it_panic() {
        let options = [&[52, 1, 3, 1, 4, 255, 255, 255, 0, 121, 5, 24, 10, 0, 0, 10][..], &[255; 3]].concat();
        let whole = answer(5, &options);
        for length in 0..=whole.len() {
            let _ = parse(&whole[..length]);
        }
        let mut state: u32 = 1;
        for _ in 0..20_000 {
            let mut bytes = whole.clone();
            for _ in 0..8 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = 34 + usize::try_from(state >> 8).unwrap() % (bytes.len() - 34);
                if !(236..240).contains(&at) {
                    bytes[at] = state.to_be_bytes()[0];
                }
            }
            if let Some(answer) = parse(&bytes) {
                assert!(answer.lease.routes.len() <= MOST && answer.lease.dns.len() <= 3);
            }
        }
        assert_eq!(parse(&vec![0; LARGEST + 1]), None);
    }

    #[test]
    fn questions_are_as_the_standard_has_them() {
        let offered = Some((Ipv4Addr::new(10, 0, 2, 15), Ipv4Addr::new(10, 0, 2, 2)));
        let question = Question { kind: Kind::Discover, number: 7, seconds: 3, card: CARD, offered: None };
        let bytes = question.bytes();
        assert_eq!((bytes.len(), &bytes[..12]), (300, &[1, 1, 6, 0, 0, 0, 0, 7, 0, 3, 0x80, 0][..]));
        let bytes = Question { kind: Kind::Request, offered, ..question }.bytes();
        assert!(bytes[240..].starts_with(&[53, 1, 3, 50, 4, 10, 0, 2, 15, 54, 4, 10, 0, 2, 2, 55]));
        let bytes = Question { kind: Kind::Release, offered, ..question }.bytes();
        assert_eq!((bytes[10], &bytes[12..16]), (0, &[10, 0, 2, 15][..]));
        assert!(bytes[240..].starts_with(&[53, 1, 7, 54, 4, 10, 0, 2, 2, 255]));
    }
}
