// Adds up the JSON reports of all suites and prints the closing line; fails on failures and on skips not listed.
'use strict'
const fs = require('node:fs')
const path = require('node:path')

const [, , folder] = process.argv
const allowed = fs
  .readFileSync(path.join(__dirname, 'allowed-skips'), 'utf8')
  .split('\n')
  .filter((line) => line && !line.startsWith('#'))
  .map((line) => line.split('\t')[0])
const total = { passed: 0, failed: 0, skipped: 0 }
const unlisted = []

for (const file of fs.readdirSync(folder).filter((name) => name.endsWith('.json'))) {
  const report = JSON.parse(fs.readFileSync(path.join(folder, file), 'utf8'))
  for (const suite of report.testResults) {
    if (suite.status === 'failed' && suite.assertionResults.length === 0) total.failed += 1
    for (const test of suite.assertionResults) {
      if (test.status === 'passed') total.passed += 1
      else if (test.status === 'failed') total.failed += 1
      else {
        total.skipped += 1
        if (!allowed.includes(test.fullName)) unlisted.push(test.fullName)
      }
    }
  }
}
for (const name of unlisted) console.log(`skipped, but not listed in .ci/allowed-skips: ${name}`)
if (total.passed === 0) total.failed += 1
console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`)
process.exit(total.failed > 0 || unlisted.length > 0 ? 1 : 0)
