// Makes a fresh clone runnable: checks the machine, installs the locked packages and builds what changed.
// Node built-ins only and old syntax, so that any Node can run it and say what is missing.
'use strict'
var fs = require('fs')
var path = require('path')
var crypto = require('crypto')
var child = require('child_process')

var root = __dirname
var at = (name) => path.join(root, name)

function refuse(sentence) {
  process.stderr.write('holdfast: ' + sentence + '\n')
  process.exit(2)
}

function checkMachine() {
  if (process.platform !== 'linux') refuse('Holdfast runs on Linux; this is ' + process.platform + '.')
  var have = process.versions.node.split('.').map(Number)
  if (have[0] < 20 || (have[0] === 20 && have[1] < 19)) {
    refuse('Holdfast needs Node 20.19 or newer; this is ' + process.versions.node + '.')
  }
}

function filesUnder(place, found) {
  if (!fs.existsSync(place)) return found
  var stat = fs.statSync(place)
  if (stat.isFile()) found.push(place)
  else
    fs.readdirSync(place)
      .sort()
      .forEach((name) => {
        filesUnder(path.join(place, name), found)
      })
  return found
}

function hashOf(places) {
  var hash = crypto.createHash('sha256').update(process.versions.modules)
  places.forEach((place) => {
    filesUnder(at(place), []).forEach((file) => {
      hash.update('\0' + path.relative(root, file) + '\0').update(fs.readFileSync(file))
    })
  })
  return hash.digest('hex')
}

function read(file) {
  try {
    return fs.readFileSync(at(file), 'utf8')
  } catch (_) {
    return ''
  }
}

function run(command, args, sentence) {
  process.stderr.write('holdfast: ' + sentence + '\n')
  var result = child.spawnSync(command, args, { cwd: root, stdio: ['ignore', 2, 2] })
  if (result.status !== 0) refuse(command + ' ' + args.join(' ') + ' failed; see the lines above.')
}

function alive(pid) {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error.code === 'EPERM'
  }
}

/** One setup at a time: the lock holds its owner's pid, and a dead owner's lock is taken over. */
function locked(work) {
  var lock = at('.setup.lock')
  for (var waited = 0; ; waited += 200) {
    try {
      fs.writeFileSync(lock, String(process.pid), { flag: 'wx' })
      break
    } catch (error) {
      if (error.code !== 'EEXIST') throw error
      var owner = Number(read('.setup.lock'))
      if (owner && !alive(owner)) {
        try {
          fs.unlinkSync(lock)
        } catch (_) {
          /* another waiter was first */
        }
        continue
      }
      if (waited > 600000) refuse('another setup holds .setup.lock (pid ' + owner + ') for ten minutes.')
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200)
    }
  }
  try {
    work()
  } finally {
    fs.unlinkSync(lock)
  }
}

var BUILT_FROM = ['src', 'proto', 'tsconfig.json', 'package.json', '.build.mjs']

function ensure() {
  var lockHash = hashOf(['package-lock.json'])
  if (read('node_modules/.holdfast-stamp') !== lockHash) {
    run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], 'installing packages (npm ci)')
    fs.writeFileSync(at('node_modules/.holdfast-stamp'), lockHash)
  }
  var sourceHash = hashOf(BUILT_FROM) + lockHash
  if (read('dist/.stamp') !== sourceHash) {
    run(process.execPath, ['.build.mjs'], 'building')
    fs.writeFileSync(at('dist/.stamp'), sourceHash)
  }
}

checkMachine()
var stampsAreFresh =
  fs.existsSync(at('node_modules')) &&
  fs.existsSync(at('dist/.stamp')) &&
  read('node_modules/.holdfast-stamp') === hashOf(['package-lock.json']) &&
  read('dist/.stamp') === hashOf(BUILT_FROM) + hashOf(['package-lock.json'])
if (!stampsAreFresh) locked(ensure)
