//! The data of options that have a structure.

use super::wire::Fields;

/// The data of an option that requests information about an export, or chooses it.
#[derive(Debug)]
pub(super) struct InfoRequest<'a> {
    pub(super) name: &'a [u8],
    /// The requested kinds of information, 16 bits each.
    wanted: &'a [u8],
}

impl<'a> InfoRequest<'a> {
    /// Parses the data. Returns `None` if they are malformed.
    pub(super) fn parse(data: &'a [u8]) -> Option<Self> {
        let mut fields = Fields(data);
        let name = fields.string()?;
        let count = usize::from(fields.u16()?);
        let wanted = fields.bytes(2 * count)?;
        fields.is_empty().then_some(Self { name, wanted })
    }

    /// Returns `true` if the client requests this kind of information.
    pub(super) fn wants(&self, kind: u16) -> bool {
        self.wanted.chunks_exact(2).any(|one| one == kind.to_be_bytes())
    }
}

/// The data of an option that lists or selects metadata contexts.
#[derive(Debug)]
pub(super) struct MetaRequest<'a> {
    pub(super) name: &'a [u8],
    pub(super) queries: Vec<&'a [u8]>,
}

impl<'a> MetaRequest<'a> {
    /// Parses the data. Returns `None` if they are malformed.
    pub(super) fn parse(data: &'a [u8]) -> Option<Self> {
        let mut fields = Fields(data);
        let name = fields.string()?;
        let count = fields.u32()?;
        // The count can be larger than the number of queries, so no memory is reserved for it.
        let mut queries = Vec::new();
        for _ in 0..count {
            queries.push(fields.string()?);
        }
        fields.is_empty().then_some(Self { name, queries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> Vec<u8> {
        [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat()
    }

    #[test]
    fn information_requests() {
        let data = [string("disk"), vec![0, 2, 0, 3, 0, 1]].concat();
        let request = InfoRequest::parse(&data).unwrap();
        assert_eq!(request.name, b"disk");
        assert!(request.wants(3) && request.wants(1) && !request.wants(0) && !request.wants(0x301));
        for len in 0..data.len() {
            assert!(InfoRequest::parse(&data[..len]).is_none(), "{len} bytes");
        }
        assert!(InfoRequest::parse(&[&data[..], &[0]].concat()).is_none());
        assert!(InfoRequest::parse(&[string(&"x".repeat(4097)), vec![0, 0]].concat()).is_none());
    }

    #[test]
    fn metadata_requests() {
        let data = [
            string("disk"),
            vec![0, 0, 0, 2],
            string("base:allocation"),
            string(""),
        ]
        .concat();
        let request = MetaRequest::parse(&data).unwrap();
        assert_eq!(request.name, b"disk");
        assert_eq!(request.queries, [&b"base:allocation"[..], b""]);
        for len in 0..data.len() {
            assert!(MetaRequest::parse(&data[..len]).is_none(), "{len} bytes");
        }
        let many = [string(""), vec![0xff; 4]].concat();
        assert!(MetaRequest::parse(&many).is_none());
    }
}
