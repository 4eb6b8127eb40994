package i2c

import (
	"fmt"
	"halo.internal/model/strict"
	"maps"
	"slices"
	"strings"
	"time"
)

// checks compiles identity and verify.
func (c *compiler) checks(list string, texts []checkText) (checks []Check) {
	if len(texts) > maxChecks {
		c.bad(list, "expected at most %d, got %d", maxChecks, len(texts))
		return nil
	}
	for i, t := range texts {
		key := fmt.Sprintf("%s[%d]", list, i)
		check := Check{Read: int(t.Read)}
		for j, o := range t.Write {
			if c.between(fmt.Sprintf("%s.write[%d]", key, j), o, 0, 255) {
				check.Write = append(check.Write, byte(o))
			}
		}
		if n := len(t.Write); n > maxCheckRead {
			c.bad(key+".write", "expected at most %d octets, got %d", maxCheckRead, n)
		}
		check.Wait = c.pause(key, t.Wait, len(t.Write) > 0)
		data := c.answer(key, t.Read, 1, maxCheckRead, t.CRC, &check.CRC)
		if t.Mask == nil && t.Value == nil && t.Not == nil && check.CRC != NoCRC {
			check.Any = true // that the checksum is right says enough
		} else {
			c.expectation(key, &check, data, t.Mask, t.Value, t.Not)
		}
		checks = append(checks, check)
	}
	return checks
}

// answer judges read and crc, and returns how many octets of data there are.
func (c *compiler) answer(key string, read, least, most int64, crc string, into *CRC) int {
	if !c.between(key+".read", read, least, most) {
		return 0
	}
	if crc != "" && !slices.Contains(crcNames, crc) {
		c.bad(key+".crc", "expected one of %s, got %.40q", strings.Join(crcNames, ", "), crc)
		return 0
	}
	*into = CRC(crc)
	n := into.dataLen(int(read))
	if n < 0 {
		c.bad(key+".read", "expected octets with checksums (%s), got %d", crc, read)
		return 0
	}
	return n
}

// expectation compiles mask, and value or not, of an answer with so many octets.
func (c *compiler) expectation(key string, check *Check, data int, mask, value, not *int64) {
	if data == 0 {
		return // read is wrong, and said so
	}
	if data > maxCheck {
		c.bad(key+".read", "expected at most %d octets of an answer that is compared, got %d", maxCheck, data)
		return
	}
	most := int64(1)<<(8*data) - 1
	check.Mask = uint32(most)
	if mask != nil && c.between(key+".mask", *mask, 0, most) {
		check.Mask = uint32(*mask)
	}
	want := value
	if not != nil {
		want, check.Differs = not, true
	}
	if (value == nil) == (not == nil) {
		c.bad(key, "expected either value or not, which the answer is compared with")
		return
	}
	which := ".value"
	if check.Differs {
		which = ".not"
	}
	if !c.between(key+which, *want, 0, most) {
		return
	}
	if check.Want = uint32(*want); check.Want&^check.Mask != 0 {
		c.bad(key+which, "%#x has bits that mask %#x has not", check.Want, check.Mask)
	}
}

// steps compiles a list. Blocks may be filled by those that are done once, at
// set-up, and by those that are done each time.
func (c *compiler) steps(list string, texts []stepText, blocks string) (steps []step) {
	if len(texts) > maxSteps {
		c.bad(list, "expected at most %d steps, got %d", maxSteps, len(texts))
		return nil
	}
	for i, t := range texts {
		key := fmt.Sprintf("%s[%d]", list, i)
		s := c.step(key, t)
		if t.Into != "" {
			c.into(key, t.Into, blocks, &s)
		}
		steps = append(steps, s)
	}
	if d := bound(steps, 0); d > maxList {
		c.bad(list, "expected waits of at most %v in all, got %v", maxList, d)
	}
	return steps
}

func (c *compiler) step(key string, t stepText) step {
	s := step{block: -1}
	if len(t.Write) == 0 && t.Read == 0 {
		if t.Wait == nil || t.Until != nil || t.Into != "" || t.CRC != "" {
			c.bad(key, "expected write, read, or wait alone")
		}
		s.wait = c.duration(key+".wait", t.Wait, 0, 0, maxWait)
		return s
	}
	s.wait = c.pause(key, t.Wait, len(t.Write) > 0 && t.Read > 0)
	s.write = c.octets(key+".write", t.Write)
	data := c.answer(key, t.Read, 0, maxOctets, t.CRC, &s.crc)
	s.read = int(t.Read)
	if t.Until != nil {
		s.until = c.until(key+".until", t.Until, data)
	}
	return s
}

// pause is the wait between writing and reading, of a step that does both.
func (c *compiler) pause(key string, d *duration, both bool) time.Duration {
	if d != nil && !both {
		c.bad(key+".wait", "expected it between write and read, or alone")
	}
	return c.duration(key+".wait", d, 0, 0, maxWait)
}

func (c *compiler) octets(key string, list []any) (octets []octet) {
	if len(list) > maxOctets {
		c.bad(key, "expected at most %d octets, got %d", maxOctets, len(list))
		return nil
	}
	for i, o := range list {
		at := fmt.Sprintf("%s[%d]", key, i)
		switch o := o.(type) {
		case int64:
			if c.between(at, o, 0, 255) {
				octets = append(octets, octet{value: byte(o)})
			}
		case string:
			octets = append(octets, octet{formula: c.formula(at, o)})
		default:
			c.bad(at, "expected an octet or a formula in quotes, got %.40v", o)
		}
	}
	return octets
}

func (c *compiler) until(key string, t *untilText, data int) *until {
	u := &until{}
	if data == 0 {
		c.bad(key, "expected read in the same step")
		return u
	}
	c.expectation(key, &u.Check, data, t.Mask, t.Value, t.Not)
	u.every = c.duration(key+".every", t.Every, defaultEvery, time.Millisecond, time.Second)
	if t.Limit == nil {
		c.bad(key+".limit", "expected how long the chip may take at most")
		return u
	}
	u.limit = c.duration(key+".limit", t.Limit, defaultEvery, u.every, maxWait)
	if n := u.limit / u.every; n > maxPolls {
		c.bad(key+".every", "expected at most %d times until limit, got %d", maxPolls, n)
	}
	return u
}

// into names the block that keeps a step's answer.
func (c *compiler) into(key, name, blocks string, s *step) {
	size := s.crc.dataLen(s.read)
	switch {
	case blocks == "":
		c.bad(key+".into", "expected a block in calibration and measure only")
	case size < 1:
		c.bad(key+".into", "expected read in the same step")
	case !templateForm.MatchString(name):
		c.bad(key+".into", "expected small letters, digits, - and _, at most 32, got %.40q", name)
	case c.block(name) >= 0:
		c.bad(key+".into", "block %s is filled by another step", name)
	default:
		s.block = len(c.t.blocks)
		c.t.blocks = append(c.t.blocks, block{name, size, blocks == "once"})
	}
}

func (c *compiler) block(name string) int {
	return slices.IndexFunc(c.t.blocks, func(b block) bool { return b.name == name })
}

// fields compiles those of blocks that are read once, or of the others. Of which
// block a field is can be said only when all blocks are known: what is in none is
// said with the others.
func (c *compiler) fields(texts map[string]fieldText, once bool) (fields []field) {
	if len(texts) > maxNames {
		if once {
			c.bad("fields", "expected at most %d, got %d", maxNames, len(texts))
		}
		return nil
	}
	for _, name := range c.inOrder("fields", maps.Keys(texts)) {
		t, key := texts[name], strict.Join("fields", name)
		b := c.block(t.In)
		if b < 0 {
			if !once {
				c.bad(key+".in", "expected a block that a step of calibration or measure reads into, got %.40q", t.In)
			}
			continue
		}
		if c.t.blocks[b].once == once {
			fields = append(fields, c.field(key, name, b, t))
		}
	}
	return fields
}

func (c *compiler) field(key, name string, block int, t fieldText) field {
	f := field{block: block, slot: c.variable(key, name)}
	if err := f.parseType(t.Type); err != nil {
		c.bad(key+".type", "%v", err)
		return f
	}
	if err := f.parseBits(t.Bits); err != nil {
		c.bad(key+".bits", "%v", err)
	}
	if size := c.t.blocks[block].size; c.between(key+".at", t.At, 0, int64(size-f.width)) {
		f.at = int(t.At)
	}
	return f
}
