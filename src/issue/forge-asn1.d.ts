/** The one module of node-forge that is used, without the rest of the package. */
declare module 'node-forge/lib/asn1.js' {
  import { asn1 } from 'node-forge'
  export default asn1
}
