/** What is wrong with a header block is never said to the peer: its connection ends (RFC 9113 s.4.3). */
export class HpackError extends Error {}
