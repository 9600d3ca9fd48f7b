package sim

func (w *world) adversary()        {}
func (w *world) adversariesLeave() {}
