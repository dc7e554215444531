/** The YAML parser as a module of its own, so that a bundle can load it when the first file is read. */
export * as yaml from 'yaml'
